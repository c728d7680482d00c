"""Losses, against Keras's and scikit-learn's."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from pipelines.training.objective import balanced_class_weights, cross_entropy, hits

NUMBERS = np.random.default_rng(3)
LOGITS = NUMBERS.normal(size=(12, 3)).astype(np.float32)
HARD = np.array([0, 1, 2, 2, 2, 2, 1, 2, 0, 2, 2, 2])
SOFT = NUMBERS.dirichlet([0.5, 0.5, 0.5], 12).astype(np.float32)
WEIGHTS = np.array([2.0, 1.0, 0.25], np.float32)


def both_ways(labels: Any, **options: Any) -> np.ndarray:
    """Eagerly, which must be what a data set's graph gives."""
    eager = cross_entropy(tf.constant(LOGITS), tf.constant(labels), **options)
    rows = tf.data.Dataset.from_tensor_slices((LOGITS, labels)).batch(len(LOGITS))
    (mapped,) = rows.map(lambda logits, label: cross_entropy(logits, label, **options))
    np.testing.assert_array_equal(eager, mapped)
    assert mapped.dtype == tf.float32
    return mapped.numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_smoothing_is_keras_s(labels: Any, smoothing: float) -> None:
    shares = np.eye(3, dtype=np.float32)[labels] if labels is HARD else labels
    expected = keras.losses.categorical_crossentropy(shares, LOGITS, from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(both_ways(labels, label_smoothing=smoothing), expected, rtol=1e-5)


def test_a_loss_is_weighed_by_its_class() -> None:
    probabilities = softmax(LOGITS.astype(np.float64), axis=1)
    expected = log_loss(HARD, probabilities, sample_weight=WEIGHTS[HARD]) * WEIGHTS[HARD].sum() / len(HARD)
    assert both_ways(HARD, class_weights=WEIGHTS).mean() == pytest.approx(expected, rel=1e-5)


def test_a_mixed_image_weighs_what_its_parts_do_on_average() -> None:
    expected = both_ways(SOFT) * (SOFT * WEIGHTS).sum(axis=1)
    np.testing.assert_allclose(both_ways(SOFT, class_weights=WEIGHTS), expected, rtol=1e-5)
    one_hot = np.eye(3, dtype=np.float32)[HARD]
    np.testing.assert_allclose(both_ways(one_hot, class_weights=WEIGHTS), both_ways(HARD, class_weights=WEIGHTS), rtol=1e-5)


def test_smoothed_labels_are_weighed_as_they_were_before() -> None:
    expected = both_ways(HARD, label_smoothing=0.3) * WEIGHTS[HARD]
    np.testing.assert_allclose(both_ways(HARD, label_smoothing=0.3, class_weights=WEIGHTS), expected, rtol=1e-6)


def test_balanced_weights_are_scikit_learn_s() -> None:
    weights = balanced_class_weights(HARD, 3)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=HARD), rtol=1e-6)
    np.testing.assert_allclose(weights[HARD], compute_sample_weight("balanced", HARD), rtol=1e-6)
    assert weights * np.bincount(HARD) == pytest.approx([len(HARD) / 3] * 3)


def test_a_class_without_images_takes_nothing_from_the_others() -> None:
    np.testing.assert_allclose(balanced_class_weights(np.array([0, 0, 2]), 4), [0.75, 1, 1.5, 1])


def test_a_hit_is_the_likeliest_class() -> None:
    one_hot = np.eye(3, dtype=np.float32)[HARD]
    expected = LOGITS.argmax(axis=1) == HARD
    for labels in (HARD, one_hot):
        np.testing.assert_array_equal(hits(tf.constant(LOGITS), tf.constant(labels)), expected)
