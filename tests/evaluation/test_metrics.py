"""metrics.json, predictions.parquet and the picture, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.evaluation.metrics import compute_metrics
from pipelines.evaluation.picture import draw_confusion_matrix
from pipelines.evaluation.predictions import write_predictions

CLASSES = ["a", "b", "never"]
LABELS = np.array([0, 0, 0, 1], np.int64)
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]], np.float32)


def test_the_figures_are_those_worked_out_by_hand() -> None:
    metrics = compute_metrics(LABELS, PROBABILITIES, classes=CLASSES, split="test")
    assert (metrics["split"], metrics["examples"], metrics["accuracy"]) == ("test", 4, 0.75)
    assert metrics["loss"] == pytest.approx(-np.mean(np.log([0.8, 0.6, 0.2, 0.8])), rel=1e-6)
    assert metrics["per_class"]["a"] == {
        "precision": 1,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert metrics["per_class"]["b"] == {"precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3), "support": 1}
    assert metrics["per_class"]["never"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert metrics["macro"]["precision"] == pytest.approx(0.5)
    assert metrics["weighted"]["recall"] == pytest.approx(0.75)
    assert metrics["confusion_matrix"] == {"labels": CLASSES, "counts": [[2, 1, 0], [0, 1, 0], [0, 0, 0]]}
    # Wilson's interval for 3 of 4, from its formula with z = 1.959964.
    assert metrics["accuracy_ci95"] == pytest.approx([0.300642, 0.954413], abs=1e-5)


def test_all_right_is_no_certainty() -> None:
    metrics = compute_metrics(np.zeros(10, np.int64), np.eye(3, dtype=np.float32)[[0] * 10], classes=CLASSES, split="test")
    assert metrics["accuracy"] == 1
    assert metrics["accuracy_ci95"] == pytest.approx([0.722467, 1], abs=1e-5)


def test_predictions_have_a_row_per_image_and_null_for_unreadable_ones(tmp_path: Path) -> None:
    probabilities = np.vstack([PROBABILITIES[:2], np.full((1, 3), np.nan, np.float32)])
    write_predictions(tmp_path / "p.parquet", {"path": ["x", "y", "z"]}, probabilities, classes=CLASSES)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["predicted"] for row in rows] == ["a", "a", None]
    assert rows[0]["probability_a"] == pytest.approx(0.8)
    assert rows[2] == {
        "path": "z",
        "predicted": None,
        "probability_a": None,
        "probability_b": None,
        "probability_never": None,
    }


@pytest.mark.parametrize("classes", [["a", "b"], ["$x_1$", "new\nline 🐱" + "long" * 20], [str(n) for n in range(60)]])
def test_the_picture_takes_any_names(tmp_path: Path, classes: list[str]) -> None:
    counts = np.eye(len(classes), dtype=int) * 3
    draw_confusion_matrix(tmp_path / "c.png", classes, counts.tolist(), title="test: $ 100%")
    picture = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"))
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture)) > 50
