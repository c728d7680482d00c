"""`imagemill describe`: the layers of a model, what each makes of an image and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.console import print_table, say
from flows.request import check_model
from pipelines.config import BACKBONE_NAMES, Recipe
from pipelines.errors import InputError
from pipelines.recipes import load_recipe
from pipelines.store.artifacts import file_in_place, write_json

if TYPE_CHECKING:
    from pipelines.report.architecture import Architecture, Field

_RECIPE_SUFFIXES = (".yaml", ".yml")


def describe(what: str | None, overrides: list[str], *, classes: int, json_file: Path | None, console: Console) -> None:
    """Prints a model layer by layer, and writes the same as JSON.

    Args:
        what: a recipe in YAML, a run folder or the name of a backbone; the defaults where None.
        overrides: recipe values as KEY=VALUE; refused for a run folder, whose model is made.
        classes: how many the model of a recipe tells apart.
        json_file: where to write, or None.
        console: to print on.

    Raises:
        InputError: there is no such model, or it can't be built.
    """
    if json_file is not None and json_file.is_dir():
        raise InputError(f"`--json` must be a file to write; {str(json_file)!r} is a folder")
    if classes < 2:
        raise InputError(f"`--classes` must be at least 2; received {classes}")
    if what is not None and Path(what).is_dir():
        if overrides:
            raise InputError(f"`--set` changes a recipe; {what!r} is a run folder, whose model is finished")
        title, model = what, _load(Path(what))
    else:
        recipe = _read_recipe(what, overrides)
        title, model = f"{recipe.model.backbone}, {recipe.image_size} px, {classes} classes", _build(recipe, classes)
    from pipelines.report.architecture import describe_model

    architecture = describe_model(model)
    _print(console, architecture, title=title)
    if json_file is not None:
        with file_in_place(json_file) as temporary:
            write_json(temporary, {"model": title, **to_json(architecture)})


def to_json(architecture: Architecture) -> dict[str, Any]:
    """The report as numbers and texts; a receptive field and a stride of null mean the whole image."""
    layers = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "output_shape": list(layer.shape),
            "parameters": layer.parameters,
            "multiply_adds": layer.multiply_adds,
            "receptive_field_px": None if layer.field.is_whole else layer.field.size_px,
            "stride_px": None if layer.field.is_whole else layer.field.stride_px,
        }
        for layer in architecture.layers
    ]
    totals = {"parameters": architecture.parameters, "multiply_adds": architecture.multiply_adds}
    return {**totals, "receptive_field_px": architecture.field.size_px, "layers": layers}


def _read_recipe(what: str | None, overrides: Sequence[str]) -> Recipe:
    if what is None:
        return load_recipe(None, list(overrides))
    if what in BACKBONE_NAMES:
        return load_recipe(None, [f"model.backbone={what}", *overrides])
    if Path(what).suffix.lower() not in _RECIPE_SUFFIXES:
        raise InputError(
            f"`MODEL` must be a run folder, a recipe in YAML or one of {', '.join(BACKBONE_NAMES)}; received {what!r}"
        )
    return load_recipe(Path(what), list(overrides))


def _build(recipe: Recipe, classes: int) -> Any:
    """The classifier of a recipe with random weights: its numbers are those of any."""
    check_model(recipe)
    from pipelines.models.assemble import build_classifier

    random_weights = recipe.model.model_copy(update={"weights": "none"})
    return build_classifier(random_weights, image_size=recipe.image_size, num_classes=classes, seed=recipe.seed)


def _load(folder: Path) -> Any:
    from pipelines.inference import load_finished

    return load_finished(folder).model


def _print(console: Console, architecture: Architecture, *, title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("kind", overflow="fold")
    for name in ("output", "parameters", "multiply-adds", "sees, px", "stride"):
        table.add_column(name, justify="right")
    for layer in architecture.layers:
        name, shape = layer.name.rpartition("/")[2], "x".join(map(str, layer.shape))
        counts = [f"{count:,}" if count else "" for count in (layer.parameters, layer.multiply_adds)]
        table.add_row(Text(name), layer.kind, shape, *counts, *_field(layer.field))
    print_table(console, table)
    counts = [f"{architecture.parameters:,} parameters", f"{architecture.multiply_adds:,} multiply-adds per image"]
    sees = f"before global pooling each place sees {architecture.field.size_px} px"
    say(console, f"{', '.join(counts)}; {sees}, {architecture.field.stride_px} px from the next")


def _field(field: Field) -> tuple[str, str]:
    return ("all", "") if field.is_whole else (str(field.size_px), str(field.stride_px))
