"""What training makes small, and what is counted beside it. All functions of tensors run in graph mode and eagerly."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def cross_entropy(
    logits: Any, labels: Any, *, label_smoothing: float = 0.0, class_weights: NDArray[np.float32] | None = None
) -> Any:
    """Losses in nats, float32 [B].

    Smoothing is that of Keras's CategoricalCrossentropy, for hard and soft labels. A loss is weighed by its class's weight, and
    with a soft label by the mean of the weights under it (Keras's `class_weight` takes that of the likeliest class).

    Args:
        logits: float32 [B, classes].
        labels: int64 [B], or float32 [B, classes] that sum to 1.
        label_smoothing: share of each label that is spread evenly over the classes, in [0, 1).
        class_weights: [classes]; None weighs all the same.
    """
    hard = labels.dtype.is_integer
    if hard and not label_smoothing:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    else:
        classes = tf.shape(logits)[1]
        shares = tf.one_hot(labels, classes) if hard else labels
        if label_smoothing:
            shares = shares * (1 - label_smoothing) + label_smoothing / tf.cast(classes, tf.float32)
        losses = tf.nn.softmax_cross_entropy_with_logits(shares, logits)
    if class_weights is None:
        return losses
    weights = tf.constant(class_weights, tf.float32)
    return losses * (tf.gather(weights, labels) if hard else tf.linalg.matvec(labels, weights))


def hits(logits: Any, labels: Any) -> Any:
    """Whether the likeliest class is the labelled one, bool [B]; of a soft label its likeliest. Arguments as above."""
    labelled = tf.cast(labels, tf.int64) if labels.dtype.is_integer else tf.argmax(labels, axis=1)
    return tf.equal(tf.argmax(logits, axis=1), labelled)


def balanced_class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Weights float32 [num_classes] under which all classes weigh the same: scikit-learn's "balanced".

    1 for a class that no image is of.
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.ones(num_classes, np.float32)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights
