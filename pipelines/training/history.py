"""The epochs that led to a trained model, as they are stored with it. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts import TrainedModel
from pipelines.store.artifacts import artifact_path, read_json, write_json

HISTORY, SECONDS = "history.json", "seconds.json"


def write_history(folder: Path, epochs: Sequence[dict[str, Any]]) -> None:
    """Writes rows of `PhaseRun.rows`; the measured seconds into a file of their own, which is no part of a digest."""
    write_json(folder / HISTORY, [{name: row[name] for name in row if name != "seconds"} for row in epochs])
    write_json(folder / SECONDS, [row["seconds"] for row in epochs])


def read_history(home: Path, trained: TrainedModel) -> list[dict[str, Any]]:
    """The epochs of all phases up to this model, in order, as `PhaseRun.rows`."""
    folder = artifact_path(home, trained.artifact)
    epochs, seconds = read_json(folder / HISTORY), read_json(folder / SECONDS)
    return [{**epoch, "seconds": value} for epoch, value in zip(epochs, seconds, strict=True)]
