"""Random erasing: the rectangles, how often, and the noise, against Keras's layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pipelines.augment.erasing import Erasing, Patches, random_boxes
from tests.augment.reference import PHOTOS, SIDE, assert_same_distribution, drawn_by_keras, uniforms_of


def boxes_as_masks(boxes: np.ndarray) -> np.ndarray:
    grid = np.arange(SIDE)
    left, top, right, bottom = boxes.T[:, :, None]
    columns, rows = (grid >= left) & (grid < right), (grid >= top) & (grid < bottom)
    return rows[:, :, None] & columns[:, None, :]


def test_rectangles_are_distributed_as_keras_s() -> None:
    always = Erasing(1.0)
    boxes = always.sample(uniforms_of(always, blocks=2), side_px=SIDE).boxes[:1000]
    theirs = np.asarray(drawn_by_keras(keras.layers.RandomErasing((1.0, 1.0), seed=1), 1000)["batch_masks"])[..., 0]
    masks = boxes_as_masks(boxes)
    assert_same_distribution(masks.sum(axis=(1, 2)), theirs.sum(axis=(1, 2)))
    for axis in (1, 2):  # heights, then widths: how many rows or columns a rectangle touches
        assert_same_distribution(masks.any(axis=3 - axis).sum(axis=1), theirs.any(axis=3 - axis).sum(axis=1))
    np.testing.assert_allclose(masks.mean(axis=0), theirs.mean(axis=0), atol=0.09)  # where they lie


def test_a_box_holds_the_pixels_that_keras_s_mask_holds() -> None:
    generator = np.random.default_rng(0)
    lengths, places = generator.uniform(0, 1, (2, 200, 2))
    starts = (SIDE - SIDE * lengths) * places
    corners = [value.astype(np.float32) for value in (*starts.T, *(starts + SIDE * lengths).T)]
    layer = keras.layers.RandomErasing()
    left, top, right, bottom = corners
    theirs = np.asarray(layer._generate_batch_mask((200, SIDE, SIDE, 3), (left, right, top, bottom)))[..., 0]
    np.testing.assert_array_equal(boxes_as_masks(random_boxes(lengths, places, side_px=SIDE)), theirs)


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_the_share_of_erased_images_is_the_probability(probability: float) -> None:
    erasing = Erasing(probability)
    boxes = erasing.sample(uniforms_of(erasing, blocks=2), side_px=SIDE).boxes
    assert (boxes[:, 2] > boxes[:, 0]).mean() == pytest.approx(probability, abs=0.03)


def test_noise_fills_the_rectangle_and_nothing_else() -> None:
    boxes = np.array([[0, 0, SIDE, SIDE], [10, 20, 30, 25], [0, 0, 0, 0]])
    patches = Patches(boxes, np.array([1, 2, 3], np.uint64))
    erased = Erasing(1.0).apply(PHOTOS[:3], patches)
    masks = boxes_as_masks(boxes)
    np.testing.assert_array_equal(erased[~masks], PHOTOS[:3][~masks])
    # Of a normal distribution times 255, clipped, as Keras fills: half is black, 16% white.
    noise = erased[0]
    assert (noise == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (noise == 255).mean() == pytest.approx(0.16, abs=0.02)
    layer = keras.layers.RandomErasing(seed=1)
    theirs = np.asarray(drawn_by_keras(layer, 1)["fill_value"])
    assert noise.mean() == pytest.approx(theirs.mean(), abs=3)
    assert noise.std() == pytest.approx(theirs.std(), abs=3)


def test_noise_depends_on_its_number_alone() -> None:
    whole = np.tile([0, 0, SIDE, SIDE], (2, 1))
    same = Erasing(1.0).apply(PHOTOS[:2], Patches(whole, np.array([7, 7], np.uint64)))
    np.testing.assert_array_equal(same[0], same[1])
    other = Erasing(1.0).apply(PHOTOS[:1], Patches(whole[:1], np.array([8], np.uint64)))
    assert (other[0] != same[0]).mean() > 0.3
