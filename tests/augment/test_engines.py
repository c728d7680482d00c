"""OpenCV's and TensorFlow's passes: the same pixels within rounding, eagerly and inside tf.data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.augment.engines import recolor_opencv, recolor_tensorflow, warp_opencv, warp_tensorflow
from pipelines.augment.philox import DrawKey
from pipelines.augment.policy import build_policy
from pipelines.config import AugmentConfig
from tests.augment.reference import IDS, PHOTOS, SIDE, assert_same_pixels

EVERYTHING = AugmentConfig(
    vertical_flip=True,
    rotation=0.5,
    zoom=0.3,
    translation=0.3,
    shear=0.3,
    random_resized_crop=0.2,
    contrast=0.5,
    brightness=0.2,
    saturation=0.5,
    hue=0.3,
)
NUMBERS = build_policy(EVERYTHING).sample(DrawKey(1, 0, IDS[: len(PHOTOS)]), side_px=SIDE)
PASSES = {
    "warp": (warp_opencv, warp_tensorflow, NUMBERS.warp),
    "recolor": (recolor_opencv, recolor_tensorflow, NUMBERS.colors),
}


@pytest.mark.parametrize("name", PASSES)
def test_both_engines_give_the_same_pixels(name: str) -> None:
    by_opencv, by_tensorflow, matrices = PASSES[name]
    expected = by_opencv(PHOTOS, matrices)
    assert expected.dtype == np.uint8
    assert (expected != PHOTOS).mean() > 0.5
    eager = np.asarray(by_tensorflow(PHOTOS, matrices))
    assert eager.dtype == np.uint8
    assert_same_pixels(eager, expected, mean=0.1, most=1.01)


def test_both_engines_take_the_same_nearest_pixels() -> None:
    expected = warp_opencv(PHOTOS, NUMBERS.warp, "nearest")
    assert (expected != warp_opencv(PHOTOS, NUMBERS.warp)).mean() > 0.5
    differs = (np.asarray(warp_tensorflow(PHOTOS, NUMBERS.warp, "nearest")) != expected).any(axis=-1)
    assert differs.mean() < 0.002  # two pixels as near as each other but for rounding


@pytest.mark.parametrize("name", PASSES)
def test_tensorflow_s_pass_is_the_same_inside_tf_data(name: str) -> None:
    _, by_tensorflow, matrices = PASSES[name]
    batches: Any = tf.data.Dataset.from_tensor_slices((PHOTOS, matrices)).batch(4).map(by_tensorflow, num_parallel_calls=2)
    assert batches.element_spec.shape.as_list() == [None, SIDE, SIDE, 3]
    in_graph = np.concatenate(list(batches.as_numpy_iterator()))
    np.testing.assert_array_equal(in_graph, np.asarray(by_tensorflow(PHOTOS, matrices)))


@pytest.mark.parametrize("name", PASSES)
def test_the_input_is_left_as_it_is(name: str) -> None:
    by_opencv, _, matrices = PASSES[name]
    images = PHOTOS.copy()
    images.setflags(write=False)
    by_opencv(images, matrices)
    np.testing.assert_array_equal(images, PHOTOS)


# 7 px are more than the image has.
@pytest.mark.parametrize(("by", "expected"), [(2, [20, 30, 30, 20]), (-2, [10, 0, 0, 10]), (7, [0, 0, 10, 20])])
def test_what_lies_outside_is_the_image_reflected_about_its_edge(by: int, expected: list[int]) -> None:
    row = np.arange(0, 40, 10, dtype=np.uint8)
    image = np.tile(row[None, None, :, None], (1, 4, 1, 3))
    shift = np.eye(3)[None].copy()
    shift[0, 0, 2] = by  # the result's pixel x shows the input's x + by
    for warp in (warp_opencv, warp_tensorflow):
        np.testing.assert_array_equal(np.asarray(warp(image, shift))[0, 0, :, 0], expected)


@pytest.mark.parametrize("by_opencv", [warp_opencv, recolor_opencv])
def test_results_lie_where_tensorflow_takes_them_over_without_a_copy(by_opencv: Any) -> None:
    matrices = NUMBERS.warp if by_opencv is warp_opencv else NUMBERS.colors
    assert matrices is not None
    assert [by_opencv(PHOTOS[:size], matrices[:size]).ctypes.data % 64 for size in range(1, 8)] == [0] * 7


def test_values_are_rounded_and_clipped() -> None:
    image = np.array([[[[0, 100, 250]]]], np.uint8)
    matrix = np.zeros((1, 7, 7))
    matrix[0, :3, :3] = np.eye(3)
    matrix[0, :3, 6] = [-3.2, 0.7, 20]
    for recolor in (recolor_opencv, recolor_tensorflow):
        assert np.asarray(recolor(image, matrix)).ravel().tolist() == [0, 101, 255]
