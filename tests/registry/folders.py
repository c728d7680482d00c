"""Run folders that no training has made: all that a registry looks at, in a few kilobytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.config import Recipe
from pipelines.contracts import Candidate
from tests.images import draw_photo, encode


def write_run(folder: Path, *, seed: int, accuracy: float = 0.75) -> None:
    """A run folder whose content depends on the seed; 2 epochs of the head, then 3 of fine-tuning."""
    (folder / "export" / "savedmodel").mkdir(parents=True)
    recipe = Recipe.model_validate({"seed": seed, "name": "pets"})
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    phases = [("head", 1), ("head", 2), ("fine_tune", 1), ("fine_tune", 2), ("fine_tune", 3)]
    rows = [
        {"phase": phase, "epoch": epoch, "loss": 1 / step, "val_loss": 1.5 / step, "accuracy": step / 10, "seconds": 0.5}
        for step, (phase, epoch) in enumerate(phases, start=1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "history.parquet")
    pq.write_table(pa.table({"sha256": [f"{seed:064x}"], "split": ["train"]}), folder / "index.parquet")
    pq.write_table(pa.table({"path": ["a.jpg"]}), folder / "predictions.parquet")
    averages = {"precision": accuracy, "recall": accuracy, "f1": accuracy}
    metrics = {"split": "test", "examples": 40, "accuracy": accuracy, "accuracy_ci95": [accuracy - 0.1, accuracy + 0.1]}
    metrics |= {"loss": 0.5, "macro": averages, "weighted": averages}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "timings.json").write_text(json.dumps({"total_seconds": 12.5, "images": 40, "stages": {}}))
    (folder / "manifest.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    (folder / "confusion_matrix.png").write_bytes(encode(draw_photo(8, 8, seed), "PNG"))
    (folder / "model.keras").write_bytes(f"model {seed}".encode())
    (folder / "export" / "savedmodel" / "saved_model.pb").write_bytes(b"\x00" * 10)


def candidate(seed: int, *, name: str = "pets", gate: str = "margin .01") -> Candidate:
    """What the run of a seed is known by."""
    content = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    return Candidate(name=name, content=content, data="d" * 64, gate=gate, code={"imagemill": "0.1.0", "commit": "c" * 40})
