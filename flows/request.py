"""What can be said about a request before any work is done. Imports no Prefect, and TensorFlow only for a new TFDS source."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pipelines.batch_size import advise_smaller
from pipelines.config import Recipe
from pipelines.config.registry import check_uri
from pipelines.errors import InputError
from pipelines.models.backbones import BACKBONES
from pipelines.models.top_layers import first_learning
from pipelines.models.weights_file import find_weights_file
from pipelines.recipes import least_batch_size
from pipelines.registry.connection import Registry
from pipelines.run_folder import check_target, check_writable
from pipelines.slices import training_slice
from pipelines.sources.folder import FoundFile, check_class_counts
from pipelines.sources.source import TFDS_PREFIX, FolderSource, Source, open_source
from tasks.devices import check_count, find_devices
from tasks.layer_names import layer_names

DEFAULT_HOME = ".imagemill"


def find_source(text: str, recipe: Recipe, *, home: Path) -> Source:
    """The source that SOURCE means; TFDS data sets are looked for where TFDS would.

    Raises:
        InputError: it can't be one.
    """
    data_dir = recipe.tfds.data_dir or os.environ.get("TFDS_DATA_DIR")
    return open_source(text, home=home.absolute(), tfds=recipe.tfds.model_copy(update={"data_dir": data_dir}))


def find_watchable(text: str, *, home: Path) -> Source:
    """The source that a text means, for who looks at it again and again.

    Raises:
        InputError: it can't change, or the home is no place to write to.
    """
    if text.startswith(TFDS_PREFIX):
        raise InputError(f"`SOURCE` must be a folder or a table to be watched; received {text!r}, which does not change")
    check_home(home)
    source = find_source(text, Recipe(), home=home)
    check_outside(source, "--home", home)
    return source


def find_registry(uri: str | None, *, home: Path) -> Registry:
    """The registry at an address; `MLFLOW_TRACKING_URI`'s where None, or that of the home.

    Raises:
        InputError: the address is none.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    try:
        if uri is not None:
            check_uri(uri)
    except ValueError as error:
        raise InputError(f"`MLFLOW_TRACKING_URI` and `--registry` {error}") from error
    check_home(home)
    return Registry(home.absolute(), uri)


def check_request(source: Source, recipe: Recipe, *, home: Path, out: Path | None) -> None:
    """Checks the source's files, the recipe's files and where results will go.

    A TFDS data set that was not written out yet is checked as far as TFDS knows it; the rest is said when it is.

    Raises:
        InputError: what is wrong and how to mend it.
    """
    found = source.peek()
    if found is not None:
        classes, files = found
        check_missing(files, max_bad_fraction=recipe.max_bad_fraction)
        check_class_counts(classes, files, fractions=recipe.split)
    check_model(recipe)
    if recipe.resources.devices > 1:
        check_count(find_devices(), recipe.resources.devices)
    check_home(home)
    check_outside(source, "--home", home)
    if out is not None:
        check_target(out)
        check_outside(source, "--out", out)
    elif isinstance(source, FolderSource) and Path.cwd().resolve().is_relative_to(source.root.resolve()):
        raise InputError(
            "`--out` must be given when the working directory lies in SOURCE, since runs/ would become a class of it"
        )
    else:
        check_writable("--out", Path("runs", "new"))
    if found is not None:
        check_batch_size(recipe, len(found[1]))


def check_model(recipe: Recipe) -> None:
    """Checks what the recipe says about the model.

    Raises:
        InputError: the images are too small for the backbone, its weights can't be read, or it has no such layers.
    """
    smallest = BACKBONES[recipe.model.backbone].min_image_size
    if recipe.image_size < smallest:
        raise InputError(f"`image_size` must be at least {smallest} for {recipe.model.backbone}; received {recipe.image_size}")
    if recipe.model.weights not in ("imagenet", "none"):
        find_weights_file(recipe.model.weights)
    training_slice(recipe)
    _check_layers(recipe)


def _check_layers(recipe: Recipe) -> None:
    """Looks for a block that is to learn in its backbone, which is built for that; a number of layers needs no look.

    Raises:
        InputError: it is not there.
    """
    named, backbone = recipe.fine_tune.layers, recipe.model.backbone
    if isinstance(named, str) and named != "all" and recipe.fine_tune.epochs:
        first_learning(layer_names(backbone), named, backbone=backbone)


def check_batch_size(recipe: Recipe, files: int) -> None:
    """Checks that one batch can be filled.

    Raises:
        InputError: with both numbers.
    """
    if least_batch_size(recipe) > files:
        raise InputError(
            f"`batch_size` must not be larger than the training split; received {recipe.batch_size} for {files} files in all:"
            f" {advise_smaller(files, devices=recipe.resources.devices)}"
        )


def check_missing(files: Sequence[FoundFile], *, max_bad_fraction: float) -> None:
    """Stops when more files are known to be missing or unreadable than the recipe allows.

    Raises:
        InputError: with the list of them.
    """
    if any(file.problem for file in files):
        from pipelines.sources.ingest import check_bad_files
        from pipelines.store.index import BAD, OK

        rows = [{"path": file.path, "status": BAD if file.problem else OK, "reason": file.problem} for file in files]
        check_bad_files(rows, max_bad_fraction=max_bad_fraction)


def check_home(home: Path) -> None:
    """Refuses a home that is a file or can't be made.

    Raises:
        InputError: it is one.
    """
    if home.exists() and not home.is_dir():
        raise InputError(f"`--home` must be a folder; {str(home)!r} is a file")
    check_writable("--home", home)


def check_outside(source: Source, option: str, folder: Path) -> None:
    """Refuses to write into a source of class folders, where only names with a dot in front are no classes.

    Raises:
        InputError: `folder` lies in `source`.
    """
    if not isinstance(source, FolderSource):
        return
    place, root = folder.resolve(), source.root.resolve()
    inside = place.relative_to(root).parts if place.is_relative_to(root) else (".",)
    if not inside or not inside[0].startswith("."):
        raise InputError(f"`{option}` must lie outside of SOURCE, or it would become a class of it; received {str(folder)!r}")


def dataset_name(source: Source, recipe: Recipe) -> str:
    """The recipe's name, or the source's."""
    return recipe.name or source.name


def default_home() -> Path:
    """`IMAGEMILL_HOME`, or `.imagemill` in the working directory."""
    return Path(os.environ.get("IMAGEMILL_HOME") or DEFAULT_HOME)


def complete_recipe(recipe: Recipe, *, dataset: str) -> Recipe:
    """The recipe with its name, and with the place of its weights file, so that it repeats the run from anywhere."""
    weights = recipe.model.weights
    if weights not in ("imagenet", "none"):
        weights = str(Path(weights).expanduser().absolute())
    return recipe.model_copy(update={"name": dataset, "model": recipe.model.model_copy(update={"weights": weights})})


def make_default_run_folder(dataset: str) -> Path:
    """Makes `runs/<date>-<name>`, the name made safe for a file system; with a number where there is one already."""
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in dataset)
    name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{safe.strip('.-')[:60] or 'run'}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    for path in (Path("runs", name) for name in names):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError  # the names have no end
