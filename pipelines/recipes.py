"""A recipe as a user writes it: a YAML file and `KEY=VALUE` pairs, checked against the schema. Imports no TensorFlow.

Where it says nothing of how to train, that is chosen by the size of the images.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipelines.batch_size import largest_batch_size
from pipelines.config import BACKBONE_NAMES, Recipe, Section
from pipelines.defaults import FROM_SCRATCH_DEFAULTS, merge
from pipelines.errors import InputError

SMALL_SIDE_PX = 48  # enlarging gains no detail, and EfficientNetLite0 at 160 px is 7 times the multiply-adds of SmallCNN at 32
_SMALL_BACKBONE = "SmallCNN"
_STEPS_PER_EPOCH = 16  # at least, as far as a batch of 8 allows: fewer would teach little


def load_recipe(path: Path | None, overrides: list[str]) -> Recipe:
    """Reads a recipe from a YAML file (or starts from the defaults) and applies `KEY=VALUE` overrides.

    Args:
        path: a YAML file with any part of a recipe, or None.
        overrides: dotted keys with YAML values, such as `head.epochs=3`; the last of equal keys holds.

    Raises:
        InputError: the file can't be read, a key is unknown (the nearest valid one is named), or a value is out of range.
    """
    data = {} if path is None else _read_yaml(path)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise InputError(f"`--set` takes KEY=VALUE, such as head.epochs=3; received {override!r}")
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"`--set {key}`: the value is not YAML; received {value!r}") from error
        _set_dotted(data, key.strip().split("."), parsed)
    return parse_recipe(data)


def check_section(overrides: Sequence[str], *, section: str) -> None:
    """Refuses `KEY=VALUE` pairs that a command would not look at, since it reads one section alone.

    Raises:
        InputError: naming the keys of that section.
    """
    for key in (override.partition("=")[0].strip() for override in overrides):
        if key.partition(".")[0] != section:
            keys = [name for name, field in _all_keys(Recipe) if name.startswith(f"{section}.") and not _section_in(field)]
            raise InputError(f"`--set` here takes {', '.join(keys)}; received {key!r}, which this command does not read")


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    """Checks a mapping against the schema; every problem is said, each in its own clause of one line.

    Raises:
        InputError: naming the key, the rule, what was received and, for an unknown key, the nearest valid one.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_describe(details) for details in error.errors())
        raise InputError(f"recipe: {problems}") from error


def suit_recipe(recipe: Recipe, *, side_px: int, train_images: int) -> tuple[Recipe, str | None]:
    """Chooses how to train where the recipe does not say: small images from scratch, photos by transfer, few in small batches.

    Args:
        recipe: as it was written; every value that was set in it stays.
        side_px: longest side of the median image.
        train_images: images in the training split.

    Returns:
        The recipe, and what was chosen, why, and which keys would change it, in one line; None where nothing was.
    """
    if {"model", "head"} & recipe.model_fields_set:
        return _fit_batch(recipe, None, train_images)
    suited, how = recipe, "by transfer"
    if side_px <= SMALL_SIDE_PX and not _means_transfer(recipe):
        chosen = {
            "model": {"backbone": _SMALL_BACKBONE},
            "image_size": max(FROM_SCRATCH_DEFAULTS["image_size"], -(-side_px // 4) * 4),  # two poolings leave no rest
            "batch_size": _batch_size(train_images, devices=recipe.resources.devices),
        }
        written = recipe.model_dump(exclude_unset=True)
        suited, how = parse_recipe(merge(merge(FROM_SCRATCH_DEFAULTS, chosen), written)), "from scratch"
    choice = (
        f"images of {side_px} px (the median's longest side): {suited.model.backbone} {how} at {suited.image_size} px;"
        " to choose yourself, set `model.backbone`, `image_size`, `fine_tune.epochs`"
    )
    return _fit_batch(suited, choice, train_images)


def least_batch_size(recipe: Recipe) -> int:
    """The smallest batch that `suit_recipe` may choose: the recipe's own where that was written."""
    return recipe.batch_size if "batch_size" in recipe.model_fields_set else recipe.resources.devices


def _fit_batch(recipe: Recipe, choice: str | None, train_images: int) -> tuple[Recipe, str | None]:
    """The recipe with smaller batches where its default ones could not be filled once."""
    size = _batch_size(train_images, devices=recipe.resources.devices)
    if "batch_size" in recipe.model_fields_set or recipe.batch_size <= max(train_images, size):
        return recipe, choice
    said = f"batches of {size}, since only {train_images} images train; to choose yourself, set `batch_size`"
    return recipe.model_copy(update={"batch_size": size}), f"{choice}; {said}" if choice else said


def _means_transfer(recipe: Recipe) -> bool:
    """Whether something is set that a from-scratch model would make no sense of."""
    enlarges = "image_size" in recipe.model_fields_set and recipe.image_size > SMALL_SIDE_PX
    caches = recipe.cache.mode in ("activations", "features")
    return enlarges or caches or "layers" in recipe.fine_tune.model_fields_set or not recipe.fine_tune.epochs


def _batch_size(train_images: int, *, devices: int) -> int:
    """The largest of 128 to 8 that leaves enough steps in an epoch and that devices can share, or what fewer images fill."""
    sizes = [size for size in (128 >> halvings for halvings in range(5)) if size % devices == 0]
    fewest = min([*sizes[-1:], largest_batch_size(train_images, devices=devices)])
    return next((size for size in sizes if train_images >= size * _STEPS_PER_EPOCH), fewest)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`--config` can't be read: {path} ({getattr(error, 'strerror', None) or error})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"`--config` is not YAML: {path} ({' '.join(str(error).split())})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"`--config` must hold a mapping of keys to values; {path} holds a {type(data).__name__}")
    return data


def _set_dotted(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"`--set {'.'.join(keys)}`: `{key}` is a value, not a section")
        data = inner
    data[keys[-1]] = value


def _describe(details: Any) -> str:
    """One problem of pydantic's as one clause."""
    key = ".".join(str(part) for part in details["loc"])
    received = details["input"]
    if details["type"] == "extra_forbidden":
        return f"unknown key `{key}`; did you mean `{_nearest_key(key)}`?"
    if key == "model.backbone":
        return f"unknown backbone {received!r}; choose one of: {', '.join(BACKBONE_NAMES)}"
    message = details["msg"].removeprefix("Value error, ")
    if not key:  # about several sections, which it names itself
        return str(message)
    shown = "" if details["type"] == "value_error" else f"; received {received!r}"
    return f"`{key}`: {message[0].lower()}{message[1:]}{shown}"


def _nearest_key(key: str) -> str:
    """The valid key most like `key`: by its last part in the same section, then anywhere."""
    keys = [name for name, _ in _all_keys(Recipe)]
    section, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == section]
    for candidates in (siblings, keys):
        by_last = {name.rpartition(".")[2]: name for name in reversed(candidates)}
        if found := difflib.get_close_matches(last, by_last, n=1, cutoff=0.7):
            return by_last[found[0]]
    return difflib.get_close_matches(key, keys, n=1, cutoff=0)[0]


def _all_keys(section: type[Section], prefix: str = "") -> list[tuple[str, Any]]:
    """Every dotted key of a section with its field, sections before what they hold."""
    keys: list[tuple[str, Any]] = []
    for name, field in section.model_fields.items():
        keys.append((prefix + name, field))
        if inner := _section_in(field):
            keys.extend(_all_keys(inner, f"{prefix}{name}."))
    return keys


def _section_in(field: Any) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
