"""The run folder: what a person takes away from a run, copied out of the artifacts, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.config import Recipe
from pipelines.contracts import Evaluation, ExportedModel, ImageIndex, TrainedModel
from pipelines.errors import InputError
from pipelines.store.artifacts import artifact_path, folder_in_place, read_json, write_json

CONFIG, INDEX, HISTORY, TIMINGS = "config.yaml", "index.parquet", "history.parquet", "timings.json"


@dataclass(frozen=True)
class RunResults:
    """What the stages of one run made, and how long each took.

    Attributes:
        timings: the content of `timings.json`.
    """

    recipe: Recipe
    index: ImageIndex
    trained: TrainedModel
    evaluation: Evaluation
    exported: ExportedModel
    timings: Mapping[str, Any]


def check_target(folder: Path, *, sign: str = TIMINGS) -> None:
    """Refuses to write results over something else.

    Args:
        folder: that `--out` names.
        sign: the file by which earlier results of the same command, which may be replaced, are known.

    Raises:
        InputError: the folder is a file, or holds other things than earlier results.
    """
    if folder.is_dir():
        is_other_run = sign != TIMINGS and (folder / TIMINGS).exists()
        if is_other_run or (any(folder.iterdir()) and not (folder / sign).is_file()):
            raise InputError(
                f"`--out` must be a new or empty folder, or earlier results to replace; {str(folder)!r} is neither"
            )
    elif folder.exists() or folder.is_symlink():
        raise InputError(f"`--out` must be a folder; {str(folder)!r} is a file")


def write_run_folder(home: Path, folder: Path, results: RunResults) -> None:
    """Assembles a run under a temporary name beside its place, then renames it; an earlier run there is replaced.

    Raises:
        RunError: no space left on the device; nothing half-written stays.
    """
    check_target(folder)
    with folder_in_place(folder) as temporary:
        _fill(home, temporary, results)


def write_history(path: Path, home: Path, trained: TrainedModel) -> None:
    """Writes `history.parquet`: one row per epoch of both phases."""
    artifact = artifact_path(home, trained.artifact)
    epochs, seconds = read_json(artifact / "history.json"), read_json(artifact / "seconds.json")
    rows = [{**epoch, "seconds": value} for epoch, value in zip(epochs, seconds, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _fill(home: Path, folder: Path, results: RunResults) -> None:
    recipe = yaml.safe_dump(results.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(recipe, encoding="utf-8")
    shutil.copyfile(artifact_path(home, results.index.artifact) / "index.parquet", folder / INDEX)
    write_history(folder / HISTORY, home, results.trained)
    evaluation = artifact_path(home, results.evaluation.artifact)
    for name in ("metrics.json", "predictions.parquet", "confusion_matrix.png"):
        shutil.copyfile(evaluation / name, folder / name)
    exported = artifact_path(home, results.exported.artifact)
    shutil.copyfile(exported / "model.keras", folder / "model.keras")
    shutil.copyfile(exported / "manifest.json", folder / "manifest.json")
    shutil.copytree(exported / "savedmodel", folder / "export" / "savedmodel")
    write_json(folder / TIMINGS, results.timings)
