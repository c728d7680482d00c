"""What can be said about a request before any work is done. Imports neither Prefect nor TensorFlow."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path

from pipelines.config import Recipe
from pipelines.errors import InputError
from pipelines.models.backbones import BACKBONES
from pipelines.run_folder import check_target
from pipelines.slices import training_slice
from pipelines.sources.folder import check_class_counts, find_images

DEFAULT_HOME = ".imagemill"


def check_request(source: Path, recipe: Recipe, *, home: Path, out: Path | None) -> None:
    """Checks the source's folders, the recipe's files and where results will go.

    Raises:
        InputError: what is wrong and how to mend it.
    """
    classes, files = find_images(source)
    check_class_counts(classes, files, fractions=recipe.split)
    check_model(recipe)
    check_home(home)
    check_outside(source, "--home", home)
    if out is not None:
        check_target(out)
        check_outside(source, "--out", out)
    elif Path.cwd().resolve().is_relative_to(source.resolve()):
        raise InputError(
            "`--out` must be given when the working directory lies in SOURCE, since runs/ would become a class of it"
        )
    check_batch_size(recipe, len(files))


def check_model(recipe: Recipe) -> None:
    """Checks what the recipe says about the model.

    Raises:
        InputError: the images are too small for the backbone, or its weights can't be read.
    """
    smallest = BACKBONES[recipe.model.backbone].min_image_size
    if recipe.image_size < smallest:
        raise InputError(f"`image_size` must be at least {smallest} for {recipe.model.backbone}; received {recipe.image_size}")
    training_slice(recipe)


def check_batch_size(recipe: Recipe, files: int) -> None:
    """Checks that one batch can be filled.

    Raises:
        InputError: with both numbers.
    """
    if recipe.batch_size > files:
        raise InputError(
            f"`batch_size` must not be larger than the training split; received {recipe.batch_size} for {files} files:"
            " lower it, such as by --set batch_size=8"
        )


def check_home(home: Path) -> None:
    """Refuses a home that is a file.

    Raises:
        InputError: it is one.
    """
    if home.exists() and not home.is_dir():
        raise InputError(f"`--home` must be a folder; {str(home)!r} is a file")


def check_outside(source: Path, option: str, folder: Path) -> None:
    """Refuses to write into the source, where only names with a dot in front are no classes.

    Raises:
        InputError: `folder` lies in `source`.
    """
    place, root = folder.resolve(), source.resolve()
    inside = place.relative_to(root).parts if place.is_relative_to(root) else (".",)
    if not inside or not inside[0].startswith("."):
        raise InputError(f"`{option}` must lie outside of SOURCE, or it would become a class of it; received {str(folder)!r}")


def dataset_name(source: Path, recipe: Recipe) -> str:
    """The recipe's name, or the source's."""
    return recipe.name or source.resolve().name


def default_run_folder(dataset: str) -> Path:
    """`runs/<date>-<name>`, the name made safe for a file system; with a number where there is one already."""
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in dataset)
    name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{safe.strip('.-')[:60] or 'run'}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in (Path("runs", name) for name in names) if not path.exists())
