"""Geometry: the pixels and distributions of the Keras layers of the same names, and what matrices must obey."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.augment.affine import (
    Flip,
    Geometric,
    RandomResizedCrop,
    Rotation,
    Shear,
    Translation,
    Zoom,
    compose,
)
from pipelines.augment.engines import warp_opencv
from tests.augment.reference import (
    PHOTOS,
    SIDE,
    applied_by_keras,
    assert_same_distribution,
    assert_same_pixels,
    drawn_by_keras,
    uniforms_of,
)


def column(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1, 1)


def mirrored(flips: Any) -> NDArray[np.float64]:
    return 1 - 2 * column(flips)


# Ours, Keras's, and Keras's numbers as ours.
PAIRS: dict[str, tuple[Geometric, Any, Any]] = {
    "horizontal_flip": (Flip("horizontal"), keras.layers.RandomFlip("horizontal", seed=1), lambda t: mirrored(t["flips"])),
    "vertical_flip": (Flip("vertical"), keras.layers.RandomFlip("vertical", seed=2), lambda t: mirrored(t["flips"])),
    "rotation": (Rotation(0.4), keras.layers.RandomRotation(0.4, seed=3), lambda t: np.deg2rad(column(t["angle"]))),
    "zoom": (Zoom(0.4), keras.layers.RandomZoom(0.4, seed=4), lambda t: column(t["height_zoom"])),
    "translation": (
        Translation(0.3, 0.2),
        keras.layers.RandomTranslation(0.2, 0.3, seed=5),
        lambda t: np.asarray(t["translations"], np.float64) / SIDE,
    ),
    "shear": (Shear(0.3, 0.2), keras.layers.RandomShear(0.3, 0.2, seed=6), lambda t: np.asarray(t["shear_factor"], np.float64)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pixels_are_those_of_keras_for_the_same_numbers(name: str) -> None:
    ours, layer, as_ours = PAIRS[name]
    transformation = drawn_by_keras(layer, len(PHOTOS))
    warped = warp_opencv(PHOTOS, ours.matrices(as_ours(transformation), side_px=SIDE))
    assert_same_pixels(warped, applied_by_keras(layer, PHOTOS, transformation))


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_are_distributed_as_keras_s(name: str) -> None:
    ours, layer, as_ours = PAIRS[name]
    uniforms = uniforms_of(ours)
    transformation = drawn_by_keras(layer, len(uniforms))
    assert_same_distribution(ours.sample(uniforms), as_ours(transformation))


def test_flips_are_exact() -> None:
    for flip, mirrored in ((Flip("horizontal"), PHOTOS[:, :, ::-1]), (Flip("vertical"), PHOTOS[:, ::-1])):
        every = -np.ones((len(PHOTOS), 1))
        np.testing.assert_array_equal(warp_opencv(PHOTOS, flip.matrices(every, side_px=SIDE)), mirrored)
        np.testing.assert_array_equal(warp_opencv(PHOTOS, flip.matrices(-every, side_px=SIDE)), PHOTOS)


def test_a_crop_shows_its_rectangle_enlarged() -> None:
    numbers = np.array([[0.5, 0.25, 0.25, 0.5]])  # width, height, left, top
    warped = warp_opencv(PHOTOS[:1], RandomResizedCrop(0.1).matrices(numbers, side_px=SIDE))
    cut = PHOTOS[:1, 32:48, 16:48]
    expected = np.asarray(keras.ops.image.resize(cut.astype(np.float32), (SIDE, SIDE), interpolation="bilinear"))
    # Away from the edge, where resizing repeats the rectangle's edge and the warp sees what lies beyond it.
    assert_same_pixels(warped[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4])


def test_crops_lie_inside_and_have_the_areas_and_shapes_asked_for() -> None:
    crop = RandomResizedCrop(0.08)
    width, height, left, top = crop.sample(uniforms_of(crop)).T
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-12
    area = width * height
    inside = (width < 1) & (height < 1)
    assert area.min() == pytest.approx(0.08, abs=0.01)
    assert np.median(area[inside & (area < 0.7)]) == pytest.approx(0.39, abs=0.03)  # uniform below what always fits
    ratio = np.log((width / height)[inside])
    assert np.abs(ratio).max() <= np.log(4 / 3) + 1e-9
    assert ratio.mean() == pytest.approx(0, abs=0.02)


unit = st.floats(0.001, 0.999)
kinds = st.sampled_from([*(ours for ours, _, _ in PAIRS.values()), RandomResizedCrop(0.2)])


def matrix_of(kind: Geometric, numbers: list[float]) -> NDArray[np.float64]:
    return kind.matrices(kind.sample(np.array([numbers])), side_px=SIDE)


@settings(deadline=None)
@given(st.lists(st.tuples(kinds, st.lists(unit, min_size=4, max_size=4)), min_size=2, max_size=6))
def test_composing_is_to_look_up_one_place_after_the_other(steps: list[tuple[Geometric, list[float]]]) -> None:
    matrices = [matrix_of(kind, numbers) for kind, numbers in steps]
    place = np.array([3.0, 50.0, 1.0])
    seen = place
    for matrix in reversed(matrices):  # the last one applied is the first one looked through
        seen = matrix[0] @ seen
    np.testing.assert_allclose(compose(matrices)[0] @ place, seen, atol=1e-6)


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-1, 1), st.floats(-1, 1))
def test_opposite_numbers_undo_each_other(angle: float, scale: float, right: float, down: float) -> None:
    pairs: list[tuple[Geometric, list[float], list[float]]] = [
        (Rotation(0.5), [angle], [-angle]),
        (Zoom(0.5), [scale], [1 / scale]),
        (Translation(1, 1), [right, down], [-right, -down]),
        (Shear(1, 0), [right, 0], [-right, 0]),
        (Flip("horizontal"), [-1], [-1]),
    ]
    for kind, there, back in pairs:
        matrices = [kind.matrices(np.array([numbers], float), side_px=SIDE) for numbers in (there, back)]
        np.testing.assert_allclose(compose(matrices)[0], np.eye(3), atol=1e-9)


@settings(deadline=None)
@given(st.lists(unit, min_size=4, max_size=4))
def test_nothing_happens_when_all_factors_are_zero(numbers: list[float]) -> None:
    for kind in (Rotation(0), Zoom(0), Translation(0, 0), Shear(0, 0)):
        np.testing.assert_allclose(matrix_of(kind, numbers)[0], np.eye(3), atol=1e-12)


@settings(deadline=None)
@given(st.lists(unit, min_size=4, max_size=4))
def test_the_centre_stays_where_it_is(numbers: list[float]) -> None:
    centre = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2, 1])
    for kind in (Flip("horizontal"), Flip("vertical"), Rotation(0.5), Zoom(0.5)):
        np.testing.assert_allclose(matrix_of(kind, numbers)[0] @ centre, centre, atol=1e-9)


def test_one_warp_is_the_same_as_one_after_the_other_but_sharper() -> None:
    turned = Rotation(0.5).matrices(np.full((6, 1), 0.2), side_px=SIDE)
    zoomed = Zoom(0.5).matrices(np.full((6, 1), 0.8), side_px=SIDE)
    at_once = warp_opencv(PHOTOS, compose([turned, zoomed]))
    in_turn = warp_opencv(warp_opencv(PHOTOS, turned), zoomed)
    inside = slice(12, -12)  # further out the second warp shows what the first one reflected
    assert_same_pixels(at_once[:, inside, inside], in_turn[:, inside, inside], mean=3, most=40)
    there_and_back = warp_opencv(PHOTOS, compose([turned, np.linalg.inv(turned)]))
    assert_same_pixels(there_and_back, PHOTOS, mean=0.1, most=2)
