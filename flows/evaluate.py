"""`imagemill evaluate`: a finished model judged on a labelled source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from flows.console import display_stages, print_metrics, print_where_to_look, say
from flows.request import check_outside
from pipelines.config import SPLITS
from pipelines.errors import ImageDecodeError, InputError, quoted
from pipelines.progress import Progress
from pipelines.quick_imports import quick_imports
from pipelines.run_folder import EVALUATION_FILES, check_target
from pipelines.sources.folder import FoundFile, digest_files, read_unchanged
from pipelines.sources.source import Source
from pipelines.store.artifacts import folder_in_place
from pipelines.store.index import read_index
from tasks.progress import reporter

CHOICES = ("auto", "all", *SPLITS)
RESULT_FILES = [
    ("metrics.json", "all figures"),
    ("confusion_matrix.png", "what was taken for what"),
    ("predictions.parquet", "each judged image with its probabilities"),
]


def evaluate_model(model: Path, source: Source, *, split: str, out: Path | None, console: Console) -> None:
    """Judges a model and prints the figures; with `out`, writes metrics.json, predictions.parquet and confusion_matrix.png.

    Args:
        model: a run folder.
        source: labelled images; classes that the model does not know are refused.
        split: `auto` takes the `test` split where there is one (else `validation`, else all); a split's name takes that split
            or, in a source without splits, the images that the run had put there.
        out: a new or empty folder, or None.
        console: to print on.

    Raises:
        InputError: as said above, or nothing readable is left.
    """
    if split not in CHOICES:
        raise InputError(f"`--split` must be one of {', '.join(CHOICES)}; received {split!r}")
    with display_stages(console):
        _, found = source.find(least_classes=1, report=reporter("evaluate"))
    with console.status("loading the model"):
        with quick_imports():
            from pipelines.inference import load_finished

        finished = load_finished(model)
    if out is not None:
        check_target(out, files=EVALUATION_FILES)
        check_outside(source, "--out", out)
    if unknown := sorted({file.label for file in found} - set(finished.classes)):
        raise InputError(f"`SOURCE` has classes that the model does not know: {', '.join(map(repr, unknown))}")
    trained_on = _read_trained_on(model)
    chosen, name = _choose(digest_files(source.root, found), split=split, trained_on=trained_on)
    _judge(finished, source.root, chosen, name=name, trained_on=trained_on, out=out, console=console)


def _choose(files: Sequence[FoundFile], *, split: str, trained_on: dict[str, str]) -> tuple[list[FoundFile], str]:
    """The files of the split that is asked for, and the name of that split."""
    given = {file.split for file in files if file.split}
    if split == "auto":
        split = next((name for name in ("test", "validation") if name in given), "all")
    if split == "all":
        return list(files), split
    in_split = [file for file in files if (file.split or trained_on.get(file.sha256 or "")) == split]
    if not in_split:
        where = "has no such split" if given else "holds no image that the run had put there"
        raise InputError(f"`--split {split}`: SOURCE {where}")
    return in_split, split


def _judge(
    finished: Any,
    root: Path,
    files: Sequence[FoundFile],
    *,
    name: str,
    trained_on: dict[str, str],
    out: Path | None,
    console: Console,
) -> None:
    from pipelines.evaluation.evaluate import write_evaluation
    from pipelines.inference import answer

    with display_stages(console):
        report = reporter("evaluate")
        answers = answer(
            finished,
            [partial(_read, root, file) for file in files],
            report=lambda done: report(Progress(done, len(files), "images")),
        )
    good = [number for number, reason in enumerate(answers.reasons) if reason is None]
    if not good:
        raise InputError(f"`SOURCE` has no readable image; the first of {len(files)} is {answers.reasons[0]}")
    for file, reason in zip(files, answers.reasons, strict=True):
        if reason is not None:
            say(console, f"left out {quoted(file.path)}: {reason}")
    judged = [files[number] for number in good]
    labels = np.array([finished.classes.index(file.label) for file in judged], np.int64)
    columns: dict[str, Sequence[str | None]] = {
        "path": [file.path for file in judged],
        "sha256": [file.sha256 for file in judged],
        "split": [name] * len(judged),
        "label": [file.label for file in judged],
    }
    probabilities = answers.probabilities[good]
    with folder_in_place(out) if out else TemporaryDirectory() as folder:
        metrics = write_evaluation(Path(folder), columns, labels, probabilities, classes=finished.classes, split=name)
    splits = Counter(trained_on.get(file.sha256 or "") for file in judged)
    if splits["train"] or (splits["validation"] and name != "validation"):
        used = f"trained on {splits['train']} and chosen by {splits['validation']}"
        say(console, f"note: the model was {used} of these {len(judged)} images, so the figures flatter it")
    print_metrics(console, metrics)
    if out:
        print_where_to_look(console, out, RESULT_FILES)


def _read(root: Path, file: FoundFile) -> bytes:
    if file.problem is not None:
        raise ImageDecodeError(file.problem)
    return read_unchanged(root, file.path, file.sha256)


def _read_trained_on(model: Path) -> dict[str, str]:
    """The split of each image that the run had, by digest.

    Raises:
        InputError: the run folder has no index.
    """
    try:
        return {row["sha256"]: row["split"] for row in read_index(model / "index.parquet")}
    except (OSError, ValueError) as error:
        raise InputError(
            f"`MODEL` must be a run folder with index.parquet; {str(model)!r} has none that can be read"
        ) from error
