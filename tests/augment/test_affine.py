"""The fused warp against the Keras layers of the same names: the same pixels for the same numbers, the same distributions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.affine import AffineParameters, apply_affine, augment_batch, sample_affine
from pipelines.config import AugmentConfig

SIZE = 64
IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def by_keras(layer: Any, transformation: Any) -> NDArray[np.float32]:
    pixels = layer.transform_images(tf.constant(IMAGE[None], tf.float32), transformation, training=True)
    return np.asarray(pixels)[0]


def drawn(layer: Any) -> Any:
    layer.build((None, SIZE, SIZE, 3))
    return layer.get_random_transformation(tf.zeros((1, SIZE, SIZE, 3)), training=True)


def same(ours: NDArray[np.uint8], theirs: NDArray[np.float32]) -> None:
    difference = np.abs(ours.astype(float) - theirs)
    # Rounding to uint8 costs half a level; OpenCV's bilinear weights have five bits.
    assert difference.mean() < 0.7
    assert difference.max() < 10


@pytest.mark.parametrize("seed", range(3))
def test_rotation_is_that_of_keras(seed: int) -> None:
    layer = keras.layers.RandomRotation(0.4, fill_mode="reflect", seed=seed)
    transformation = drawn(layer)
    angle = np.deg2rad(float(np.ravel(transformation["angle"])[0]))
    same(apply_affine(IMAGE, AffineParameters(angle=angle)), by_keras(layer, transformation))


@pytest.mark.parametrize("seed", range(3))
def test_zoom_is_that_of_keras(seed: int) -> None:
    layer = keras.layers.RandomZoom(0.4, fill_mode="reflect", seed=seed)
    transformation = drawn(layer)
    zoom = float(np.ravel(transformation["height_zoom"])[0])
    same(apply_affine(IMAGE, AffineParameters(zoom=zoom)), by_keras(layer, transformation))


@pytest.mark.parametrize("seed", range(3))
def test_translation_is_that_of_keras(seed: int) -> None:
    layer = keras.layers.RandomTranslation(0.3, 0.3, fill_mode="reflect", seed=seed)
    transformation = drawn(layer)
    x_px, y_px = np.ravel(transformation["translations"])
    parameters = AffineParameters(shift_x=float(x_px) / SIZE, shift_y=float(y_px) / SIZE)
    same(apply_affine(IMAGE, parameters), by_keras(layer, transformation))


def test_flips_are_exact() -> None:
    np.testing.assert_array_equal(apply_affine(IMAGE, AffineParameters(flip_x=True)), IMAGE[:, ::-1])
    np.testing.assert_array_equal(apply_affine(IMAGE, AffineParameters(flip_y=True)), IMAGE[::-1])
    np.testing.assert_array_equal(apply_affine(IMAGE, AffineParameters()), IMAGE)


def test_the_distributions_are_uniform_over_the_recipe_s_ranges() -> None:
    config = AugmentConfig(vertical_flip=True, rotation=0.1, zoom=0.2, translation=0.3)
    samples = [sample_affine(config, seed=5, epoch=2, example=example) for example in range(4000)]
    for values, bound in (
        ([s.angle for s in samples], 0.2 * np.pi),
        ([s.zoom - 1 for s in samples], 0.2),
        ([s.shift_x for s in samples], 0.3),
        ([s.shift_y for s in samples], 0.3),
    ):
        assert np.abs(values).max() <= bound
        assert np.mean(values) == pytest.approx(0, abs=0.05 * bound)
        assert np.std(values) == pytest.approx(bound / np.sqrt(3), rel=0.05)  # of a uniform distribution
    assert np.mean([s.flip_x for s in samples]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([s.flip_x == s.flip_y for s in samples]) == pytest.approx(0.5, abs=0.03)


def test_what_the_recipe_leaves_out_does_not_happen() -> None:
    config = AugmentConfig(horizontal_flip=False, rotation=0, zoom=0)
    assert {sample_affine(config, seed=1, epoch=0, example=example) for example in range(50)} == {AffineParameters()}


def test_numbers_depend_on_seed_epoch_and_example_alone() -> None:
    config = AugmentConfig()
    keys = [(seed, epoch, example) for seed in (1, 2**32 - 1) for epoch in range(5) for example in range(20)]
    samples = [sample_affine(config, seed=s, epoch=e, example=x) for s, e, x in keys]
    assert len(set(samples)) == len(keys)
    assert samples[7] == sample_affine(config, seed=keys[7][0], epoch=keys[7][1], example=keys[7][2])


def test_a_batch_is_augmented_image_by_image_into_a_new_array() -> None:
    images = np.stack([IMAGE, IMAGE])
    before = images.copy()
    result = augment_batch(images, [3, 4], config=AugmentConfig(), seed=1, epoch=0)
    expected = [apply_affine(IMAGE, sample_affine(AugmentConfig(), seed=1, epoch=0, example=n)) for n in (3, 4)]
    np.testing.assert_array_equal(result, np.stack(expected))
    np.testing.assert_array_equal(images, before)
