"""Colours: Keras's pixels and distributions where ours are the same, independent references where they are not."""

from __future__ import annotations

import colorsys
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pipelines.augment.color import Brightness, Coloring, Contrast, Hue, Saturation, compose
from pipelines.augment.engines import recolor_opencv
from tests.augment.reference import (
    PHOTOS,
    applied_by_keras,
    assert_same_distribution,
    assert_same_pixels,
    drawn_by_keras,
    uniforms_of,
)

KINDS: dict[str, tuple[Coloring, Any, Any]] = {
    "contrast": (Contrast(0.4), keras.layers.RandomContrast((0.4, 0.4), seed=1), lambda t: t["contrast_factor"]),
    "brightness": (Brightness(0.3), keras.layers.RandomBrightness(0.3, seed=2), lambda t: t["rgb_delta"]),
    "saturation": (Saturation(0.4), keras.layers.RandomSaturation((0.3, 0.7), seed=3), lambda t: t["factor"]),
    "hue": (Hue(0.5), keras.layers.RandomHue(0.5, seed=4), lambda t: 2 * np.pi * np.asarray(t["factor"])),
}


def numbers_of(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 1)


def recolored(kind: Coloring, value: float) -> NDArray[np.uint8]:
    return recolor_opencv(PHOTOS, kind.matrices(np.full((len(PHOTOS), 1), value)))


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_distributed_as_keras_s(name: str) -> None:
    ours, layer, as_ours = KINDS[name]
    uniforms = uniforms_of(ours)
    theirs = as_ours(drawn_by_keras(layer, len(uniforms), side=2))
    assert_same_distribution(ours.sample(uniforms), numbers_of(theirs))


@pytest.mark.parametrize("name", ["contrast", "brightness"])
def test_pixels_are_those_of_keras_for_the_same_numbers(name: str) -> None:
    ours, layer, as_ours = KINDS[name]
    transformation = drawn_by_keras(layer, len(PHOTOS))
    pixels = recolor_opencv(PHOTOS, ours.matrices(numbers_of(as_ours(transformation))))
    assert_same_pixels(pixels, applied_by_keras(layer, PHOTOS, transformation), most=1.01)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.8])
def test_saturation_is_that_of_pillow(factor: float) -> None:
    expected = [np.asarray(ImageEnhance.Color(Image.fromarray(photo)).enhance(factor)) for photo in PHOTOS]
    assert_same_pixels(recolored(Saturation(0.5), factor), np.stack(expected), mean=0.8, most=2.01)


@pytest.mark.parametrize("turn", [-2.0, -0.5, 0.3, np.pi])
def test_hue_is_a_turn_in_yiq(turn: float) -> None:
    def turned(pixel: NDArray[np.float64]) -> tuple[float, float, float]:
        y, i, q = colorsys.rgb_to_yiq(*pixel)
        # Clockwise, since in this plane red, yellow, green and blue follow one another clockwise.
        chrominance = complex(i, q) * np.exp(-1j * turn)
        return colorsys.yiq_to_rgb(y, chrominance.real, chrominance.imag)

    pixels = PHOTOS[:2, ::8, ::8]
    expected = np.array([turned(pixel) for pixel in pixels.reshape(-1, 3) / 255]).reshape(pixels.shape) * 255
    ours = recolor_opencv(pixels, Hue(1).matrices(np.full((2, 1), turn)))
    assert_same_pixels(ours, expected, mean=1.5, most=6)  # the standard library rounds the matrix to two digits


def test_hue_turns_the_way_keras_turns_it() -> None:
    layer = keras.layers.RandomHue(0.2)
    transformation = {"factor": np.full(len(PHOTOS), 0.05)}
    theirs = applied_by_keras(layer, PHOTOS, transformation) - PHOTOS
    for turn, sign in ((0.05, 1), (-0.05, -1)):
        ours = recolored(Hue(0.2), 2 * np.pi * turn).astype(float) - PHOTOS
        assert sign * np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("kind", [Saturation(0.5), Hue(1.0)])
def test_grey_stays_grey_and_luma_stays_luma(kind: Coloring) -> None:
    matrices = kind.matrices(np.array([[1.7]]))
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    np.testing.assert_array_equal(recolor_opencv(grey, matrices), grey)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luma @ matrices[0, :3, :3], luma, atol=1e-9)


def test_contrast_alone_keeps_the_mean_and_nothing_changes_at_neutral_numbers() -> None:
    quiet = (PHOTOS // 2 + 64).astype(np.uint8)  # nothing is clipped
    louder = recolor_opencv(quiet, Contrast(0.5).matrices(np.full((6, 1), 1.4)))
    np.testing.assert_allclose(louder.mean(axis=(1, 2)), quiet.mean(axis=(1, 2)), atol=0.1)
    for kind, neutral in ((Contrast(1), 1.0), (Brightness(1), 0.0), (Saturation(0.5), 1.0), (Hue(1), 0.0)):
        np.testing.assert_array_equal(recolored(kind, neutral), PHOTOS)


numbers = st.lists(
    st.one_of(
        st.tuples(st.just(Contrast(1)), st.floats(0, 2)),
        st.tuples(st.just(Brightness(1)), st.floats(-200, 200)),
        st.tuples(st.just(Saturation(0.5)), st.floats(0, 3)),
        st.tuples(st.just(Hue(1)), st.floats(-3, 3)),
    ),
    min_size=2,
    max_size=6,
)


@settings(deadline=None)
@given(numbers)
def test_one_pass_is_all_of_them_in_turn_the_mean_taken_anew_each_time(steps: list[tuple[Coloring, float]]) -> None:
    pixels = np.random.default_rng(2).uniform(0, 255, (50, 3))
    in_turn = pixels
    for kind, number in steps:
        matrix = kind.matrices(np.array([[number]]))[0]
        in_turn = in_turn @ matrix[:3, :3].T + in_turn.mean(axis=0) @ matrix[:3, 3:6].T + matrix[:3, 6]
    at_once = compose([kind.matrices(np.array([[number]])) for kind, number in steps])[0]
    result = pixels @ at_once[:3, :3].T + pixels.mean(axis=0) @ at_once[:3, 3:6].T + at_once[:3, 6]
    np.testing.assert_allclose(result, in_turn, rtol=1e-6, atol=1e-6)
    # These four commute, as long as nothing is clipped between them: a policy may draw them in any order.
    backwards = compose([kind.matrices(np.array([[number]])) for kind, number in reversed(steps)])[0]
    np.testing.assert_allclose(backwards, at_once, rtol=1e-6, atol=1e-6)


def test_what_does_not_commute_is_composed_in_the_order_given() -> None:
    first, then = np.random.default_rng(1).normal(size=(2, 1, 7, 7))
    np.testing.assert_allclose(compose([first, then]), then @ first)
