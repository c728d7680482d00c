"""Figures of a classification: every one of them is scikit-learn's or SciPy's, arranged as `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support


def compute_metrics(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], *, classes: Sequence[str], split: str
) -> dict[str, Any]:
    """The content of `metrics.json`.

    Args:
        labels: int64 [n], n > 0, index into `classes`.
        probabilities: float32 [n, classes], rows sum to 1.
        classes: names in label order.
        split: which split these are.

    Returns:
        Accuracy with Wilson's 95% interval, loss (mean cross-entropy in nats), macro and support-weighted averages,
        figures of each class (a figure without a denominator is 0) and the confusion matrix (rows are true classes,
        columns predicted ones).
    """
    numbers = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(confidence_level=0.95, method="wilson")
    per_class = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0)
    return {
        "split": split,
        "examples": len(labels),
        "accuracy": float(accuracy_score(labels, predicted)),
        "accuracy_ci95": [float(interval.low), float(interval.high)],
        "loss": _cross_entropy(labels, probabilities, numbers),
        "macro": _average(labels, predicted, numbers, "macro"),
        "weighted": _average(labels, predicted, numbers, "weighted"),
        "per_class": {
            name: {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in zip(classes, *per_class, strict=True)
        },
        "confusion_matrix": {
            "labels": list(classes),
            "counts": confusion_matrix(labels, predicted, labels=numbers).tolist(),
        },
    }


def _cross_entropy(labels: NDArray[np.int64], probabilities: NDArray[np.float32], numbers: NDArray[np.int64]) -> float:
    """scikit-learn wants rows that sum to 1 in double precision; softmax in single precision misses it by 1e-7."""
    double = probabilities.astype(np.float64)
    return float(log_loss(labels, double / double.sum(axis=1, keepdims=True), labels=numbers))


def _average(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], numbers: NDArray[np.int64], average: str
) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=numbers, average=average, zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
