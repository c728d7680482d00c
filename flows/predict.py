"""`imagemill predict`: a folder of images in, a Parquet file of predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from flows.console import display_stages, printable, say
from pipelines.errors import ImageDecodeError, InputError, quoted
from pipelines.progress import Progress
from pipelines.quick_imports import quick_imports
from pipelines.run_folder import check_writable
from pipelines.sources.folder import EXTENSIONS, image_paths, printable_path
from tasks.progress import reporter

_SHOWN = 20  # images whose classes are printed, and unreadable ones that are named


def predict_images(model: Path, images: Path, *, out: Path, console: Console) -> None:
    """Predicts an image, or all images of a folder at any depth, and writes one row per file.

    Files that can't be read have a row with the reason and no prediction.

    Raises:
        InputError: the model, the images or the place to write are not what they should be.
    """
    paths = _paths(images)
    if out.is_dir() or out.suffix != ".parquet":
        raise InputError(f"`--out` must name a file that ends in .parquet; received {str(out)!r}")
    check_writable("--out", out)

    with console.status("loading the model"):
        with quick_imports():
            from pipelines.evaluation.predictions import write_predictions
            from pipelines.inference import answer, load_finished
            from pipelines.store.artifacts import file_in_place

        finished = load_finished(model)
    with display_stages(console):
        report = reporter("predict")
        answers = answer(
            finished,
            [partial(_read, path) for path in paths],
            report=lambda done: report(Progress(done, len(paths), "images")),
        )
    unreadable = [reason for reason in answers.reasons if reason is not None]
    if len(unreadable) == len(paths):
        raise InputError(f"`IMAGES` has no readable image; the first of {len(paths)} is {unreadable[0]}")
    root = images if images.is_dir() else images.parent
    names = [printable_path(path.relative_to(root)) for path in paths]
    columns: dict[str, Sequence[str | None]] = {"path": names, "reason": answers.reasons}
    with file_in_place(out) as temporary:
        write_predictions(temporary, columns, answers.probabilities, classes=finished.classes)
    for name, reason in [pair for pair in zip(names, answers.reasons, strict=True) if pair[1] is not None][:_SHOWN]:
        say(console, f"unreadable {quoted(name)}: {reason}")
    if len(paths) <= _SHOWN:
        for name, row in zip(names, answers.probabilities, strict=True):
            if not np.isnan(row).any():
                say(console, f"{quoted(name)}: {printable(finished.classes[int(row.argmax())])} ({row.max():.1%})")
    say(console, f"{len(paths) - len(unreadable)} images predicted, {len(unreadable)} unreadable: {out}")


def _paths(images: Path) -> list[Path]:
    if not images.exists():
        raise InputError(f"`IMAGES` must be an image or a folder; {str(images)!r} does not exist")
    if not images.is_dir():
        return [images]
    paths = image_paths(images)
    if not paths:
        raise InputError(f"`IMAGES` must hold images ({', '.join(EXTENSIONS)}); {str(images)!r} has none")
    return paths


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe would be read for ever
        raise ImageDecodeError("unreadable: not a regular file")
    return path.read_bytes()
