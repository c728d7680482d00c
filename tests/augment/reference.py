"""What the tests of augmentation compare with: a test image, Keras's layers called with known numbers, and their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.philox import DrawKey, draw_uniforms
from tests.images import draw_photo

SIDE = 64
PHOTOS = np.stack([np.asarray(draw_photo(SIDE, SIDE, seed=seed)) for seed in range(6)])
MANY = 4000
IDS = np.random.default_rng(3).integers(0, 2**64, MANY, np.uint64)


def uniforms_of(augmentation: Any, *, blocks: int = 1, seed: int = 5, epoch: int = 2) -> NDArray[np.float64]:
    """Uniform numbers [MANY, 4 * blocks] of an augmentation's own stream."""
    return draw_uniforms(DrawKey(seed, epoch, IDS), [(augmentation.stream, blocks)])[0]


def drawn_by_keras(layer: Any, count: int, *, side: int = SIDE) -> Any:
    """What the layer would do to `count` images."""
    layer.build((None, side, side, 3))
    return layer.get_random_transformation(tf.zeros((count, side, side, 3)), training=True)


def applied_by_keras(layer: Any, images: NDArray[np.uint8], transformation: Any) -> NDArray[np.float32]:
    """The layer's pixels, float32, for known numbers."""
    return np.asarray(layer.transform_images(tf.constant(images, tf.float32), transformation, training=True))


def assert_same_pixels(ours: NDArray[Any], theirs: NDArray[Any], *, mean: float = 0.5, most: float = 3) -> None:
    """Rounding to uint8 costs half a level; OpenCV's interpolation weights may cost a little more at edges."""
    difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float))
    assert difference.mean() < mean
    assert difference.max() < most


def assert_same_distribution(ours: Any, theirs: Any) -> None:
    """Two large samples have the same mean, spread and distribution function, column by column."""
    ours, theirs = (np.asarray(numbers, float).reshape(len(numbers), -1) for numbers in (ours, theirs))
    for column, reference in zip(ours.T, theirs.T, strict=True):
        width = np.ptp(reference)
        assert width > 0
        assert abs(column.mean() - reference.mean()) < 0.04 * width
        assert abs(column.std() - reference.std()) < 0.02 * width
        assert scipy.stats.ks_2samp(column, reference).pvalue > 1e-4
