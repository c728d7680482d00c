"""The run folder: what a person takes away from a run, copied out of the artifacts, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.config import Recipe
from pipelines.contracts import CHAMPION, Evaluation, ExportedModel, ImageIndex, TrainedModel
from pipelines.errors import InputError
from pipelines.store.artifacts import artifact_path, folder_in_place, write_json
from pipelines.store.index import read_index, write_index
from pipelines.training.history import read_history

CONFIG, INDEX, HISTORY, TIMINGS = "config.yaml", "index.parquet", "history.parquet", "timings.json"
MODEL = "model.keras"
GATE = "gate.json"  # written after the others, where a champion may be replaced
SEEN = "seen.parquet"  # rows of the indices of those runs whose weights this one began with, see `read_seen`
LEARNED = "learned.parquet"  # what the weights learned, where not simply the training images; see `read_learned`
EVALUATION_FILES = ("metrics.json", "predictions.parquet", "confusion_matrix.png")
# The first of them is the sign by which earlier results are known.
RUN_FILES = (TIMINGS, CONFIG, INDEX, HISTORY, *EVALUATION_FILES, MODEL, "manifest.json", "export", GATE, SEEN, LEARNED)


@dataclass(frozen=True)
class RunResults:
    """What the stages of one run made, and how long each took.

    Attributes:
        timings: the content of `timings.json`.
        started_from: run folder whose weights training began with, or None.
    """

    recipe: Recipe
    index: ImageIndex
    trained: TrainedModel
    evaluation: Evaluation
    exported: ExportedModel
    timings: Mapping[str, Any]
    started_from: Path | None = None


def check_target(folder: Path, *, files: Sequence[str] = RUN_FILES) -> None:
    """Refuses to write results over something else, or where nothing can be written.

    Args:
        folder: that `--out` names.
        files: what the command writes; a folder with the first of them and nothing else may be replaced.

    Raises:
        InputError: the folder is a file, holds other things than earlier results, or can't be made.
    """
    if folder.is_dir():
        present = {path.name for path in folder.iterdir()}
        strangers = sorted(present - set(files))
        if present and (strangers or files[0] not in present):
            raise InputError(
                "`--out` must be a new or empty folder, or earlier results to replace;"
                f" {str(folder)!r} holds {(strangers or sorted(present))[0]!r}"
            )
    elif folder.exists() or folder.is_symlink():
        raise InputError(f"`--out` must be a folder; {str(folder)!r} is a file")
    check_writable("--out", folder)


def check_writable(option: str, path: Path) -> None:
    """Refuses a place where no file or folder can be made, before hours of work.

    Raises:
        InputError: naming the nearest folder that is there.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"`{option}` must lie in a folder; {str(nearest)!r} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"`{option}` must lie where you may write; {str(nearest)!r} is read-only for you")


def write_run_folder(home: Path, folder: Path, results: RunResults) -> None:
    """Assembles a run under a temporary name beside its place, then renames it; an earlier run there is replaced.

    Raises:
        RunError: no space left on the device; nothing half-written stays.
    """
    check_target(folder)
    with folder_in_place(folder) as temporary:
        _fill(home, temporary, results)


def read_seen(folder: Path) -> list[dict[str, Any]]:
    """Rows of the index of all images that a run's model was trained on or chosen by, and those of the runs it began with.

    Raises:
        OSError: no index.
        ValueError: one that can't be read.
    """
    own = [row for row in read_index(folder / INDEX) if row["split"] in ("train", "validation")]
    if not (folder / SEEN).exists():
        return own
    known = {row["sha256"] for row in own}
    return own + [row for row in read_index(folder / SEEN) if row["sha256"] not in known]


def read_learned(folder: Path) -> pa.Table:
    """What the weights of a run learned: columns `sha256` and `label` of training images, those of the runs it began with too.

    Its own training images are among them only if phase 2 found better weights than those that it began with.

    Raises:
        OSError: no index.
        ValueError: one that can't be read.
    """
    if (folder / LEARNED).exists():
        return pq.read_table(folder / LEARNED)
    return pq.read_table(folder / INDEX, columns=["sha256", "label"], filters=[("split", "==", "train")])


def _fill(home: Path, folder: Path, results: RunResults) -> None:
    recipe = yaml.safe_dump(results.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(recipe, encoding="utf-8")
    shutil.copyfile(artifact_path(home, results.index.artifact) / "index.parquet", folder / INDEX)
    pq.write_table(pa.Table.from_pylist(read_history(home, results.trained)), folder / HISTORY)
    evaluation = artifact_path(home, results.evaluation.artifact)
    for name in EVALUATION_FILES:
        shutil.copyfile(evaluation / name, folder / name)
    exported = artifact_path(home, results.exported.artifact)
    shutil.copyfile(exported / MODEL, folder / MODEL)
    shutil.copyfile(exported / "manifest.json", folder / "manifest.json")
    shutil.copytree(exported / "savedmodel", folder / "export" / "savedmodel")
    write_json(folder / TIMINGS, results.timings)
    if results.started_from is not None:
        write_index(folder / SEEN, read_seen(results.started_from))
        learned = [read_learned(results.started_from)]
        if results.trained.phase != CHAMPION:
            learned.append(read_learned(folder))
        pq.write_table(pa.concat_tables(learned), folder / LEARNED)
