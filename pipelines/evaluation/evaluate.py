"""The evaluate stage: predictions of the trained model on the split that judges it, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import ModelConfig
from pipelines.contracts import Evaluation, PreparedImages, TrainedModel
from pipelines.data.prepare import read_examples
from pipelines.evaluation.metrics import compute_metrics
from pipelines.evaluation.picture import draw_confusion_matrix
from pipelines.evaluation.predictions import predict_probabilities, write_predictions
from pipelines.models.assemble import with_probabilities
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.store.artifacts import publish, scratch_folder, write_json
from pipelines.training.state import rebuild

METRICS, PREDICTIONS, CONFUSION = "metrics.json", "predictions.parquet", "confusion_matrix.png"


def evaluate(
    home: Path,
    prepared: PreparedImages,
    trained: TrainedModel,
    *,
    split: str,
    model: ModelConfig,
    report: Report = ignore_progress,
) -> Evaluation:
    """Evaluates the trained model on one split and publishes metrics, predictions and the confusion matrix."""
    examples, reader = read_examples(home, prepared, split)
    classifier = with_probabilities(rebuild(home, prepared, trained, model=model))

    def count(done: int) -> None:
        report(Progress(done, len(examples), "images"))

    probabilities = predict_probabilities(classifier, reader, report=count)
    columns = {
        "path": examples.paths,
        "sha256": examples.digests,
        "split": [split] * len(examples),
        "label": [prepared.classes[label] for label in examples.labels],
    }
    with scratch_folder(home) as folder:
        metrics = write_evaluation(folder, columns, examples.labels, probabilities, classes=prepared.classes, split=split)
        artifact = publish(home, "evaluate", folder)
    return Evaluation(artifact=artifact, split=split, accuracy=metrics["accuracy"], examples=len(examples))


def write_evaluation(
    folder: Path,
    columns: Mapping[str, Sequence[Any]],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    *,
    classes: Sequence[str],
    split: str,
) -> dict[str, Any]:
    """Writes `metrics.json`, `predictions.parquet` and `confusion_matrix.png` into a folder, and returns the metrics.

    Args:
        folder: to write into.
        columns: what predictions.parquet says of each image before its prediction.
        labels: int64 [n], index into `classes`.
        probabilities: float32 [n, classes].
        classes: names in label order.
        split: what to call these images.
    """
    metrics = compute_metrics(labels, probabilities, classes=classes, split=split)
    write_json(folder / METRICS, metrics)
    write_predictions(folder / PREDICTIONS, columns, probabilities, classes=classes)
    title = f"{split}: {metrics['accuracy']:.1%} of {len(labels)} right"
    draw_confusion_matrix(folder / CONFUSION, classes, metrics["confusion_matrix"]["counts"], title=title)
    return metrics
