"""What can be said about a request before any work is done. Imports neither Prefect nor TensorFlow."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pipelines.config import Recipe
from pipelines.errors import InputError
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
    training_slice(recipe)
    if home.exists() and not home.is_dir():
        raise InputError(f"`--home` must be a folder; {str(home)!r} is a file")
    target = out or default_run_folder(dataset_name(source, recipe))
    check_target(target)
    for option, folder in (("--out", target), ("--home", home)):
        inside = folder.resolve().relative_to(source.resolve()) if folder.resolve().is_relative_to(source.resolve()) else None
        if inside is not None and not (inside.parts and inside.parts[0].startswith(".")):
            raise InputError(
                f"`{option}` must lie outside of SOURCE, or it would become a class of it; received {str(folder)!r}"
            )


def dataset_name(source: Path, recipe: Recipe) -> str:
    """The recipe's name, or the source's."""
    return recipe.name or source.resolve().name


def default_run_folder(dataset: str) -> Path:
    """`runs/<date>-<name>`, the name made safe for a file system."""
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in dataset)
    return Path("runs", f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{safe.strip('.-')[:60] or 'run'}")
