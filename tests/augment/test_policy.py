"""A recipe's augmentation as a whole: what it does, and that it is a pure function of seed, epoch and image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.augment import affine
from pipelines.augment.affine import Flip, Rotation, Zoom
from pipelines.augment.philox import DrawKey
from pipelines.augment.policy import Policy, build_policy
from pipelines.config import AugmentConfig
from tests.augment.reference import IDS, PHOTOS, SIDE, assert_same_pixels

OFF: dict[str, Any] = {"horizontal_flip": False, "rotation": 0.0, "zoom": 0.0}
EVERYTHING = AugmentConfig(
    vertical_flip=True,
    translation=0.2,
    shear=0.2,
    random_resized_crop=0.3,
    contrast=0.3,
    brightness=0.2,
    saturation=0.3,
    hue=0.2,
    erasing=0.6,
    rand_augment=2,
)
NO_SWITCH = ("where", "engine", "interpolation", "rand_augment_magnitude")
EACH = {name: value for name, value in EVERYTHING.model_dump().items() if value and name not in NO_SWITCH}
COUNT = len(PHOTOS)


def augmented(config: AugmentConfig, *, seed: int = 1, epoch: int = 0, rows: Any = slice(None)) -> np.ndarray:
    return build_policy(config).augment(PHOTOS[rows], DrawKey(seed, epoch, IDS[:COUNT][rows]))


def test_the_defaults_are_flip_rotation_and_zoom() -> None:
    assert build_policy(AugmentConfig()) == Policy(geometry=(Flip("horizontal"), Rotation(0.1), Zoom(0.1)))


def test_nothing_is_done_when_everything_is_off() -> None:
    policy = build_policy(AugmentConfig(**OFF))
    assert policy == Policy()
    np.testing.assert_array_equal(policy.augment(PHOTOS, DrawKey(1, 0, IDS[:COUNT])), PHOTOS)


@pytest.mark.parametrize("name", EACH)
def test_each_one_alone_changes_images(name: str) -> None:
    config = AugmentConfig(**{**OFF, name: EACH[name]})
    assert any((augmented(config, epoch=epoch) != PHOTOS).any() for epoch in range(3))


@pytest.mark.parametrize("engine", ["opencv", "tensorflow"])
def test_images_are_left_as_they_are_and_the_result_is_new(engine: Any) -> None:
    images = PHOTOS.copy()
    result = build_policy(EVERYTHING.model_copy(update={"engine": engine})).augment(images, DrawKey(1, 0, IDS[:COUNT]))
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(images, PHOTOS)


def test_both_engines_augment_alike() -> None:
    other = EVERYTHING.model_copy(update={"engine": "tensorflow"})
    assert_same_pixels(augmented(other), augmented(EVERYTHING), mean=0.3, most=4)


@pytest.mark.parametrize("engine", ["opencv", "tensorflow"])
def test_nearest_shifts_by_whole_pixels(engine: Any) -> None:
    most_px = 4
    config = AugmentConfig(
        **{**OFF, "horizontal_flip": True, "translation": most_px / SIDE}, interpolation="nearest", engine=engine
    )
    around = np.pad(PHOTOS, ((0, 0), (most_px, most_px), (most_px, most_px), (0, 0)), mode="symmetric")
    offsets = range(2 * most_px + 1)
    shifts = set()
    for epoch in range(4):
        for image, source in zip(augmented(config, epoch=epoch), around, strict=True):
            places = [(x, y) for x in offsets for y in offsets]
            crops = [source[y : y + SIDE, x : x + SIDE] for x, y in places]
            (found,) = [place for place, crop in zip(places, crops, strict=True) if _is_one_of(image, crop, crop[:, ::-1])]
            shifts.add(found)
    assert len(shifts) > most_px


def test_interpolation_alone_changes_nothing() -> None:
    config = AugmentConfig(**OFF, interpolation="nearest")
    assert not config.changes_images
    np.testing.assert_array_equal(augmented(config), PHOTOS)


def _is_one_of(image: np.ndarray, *others: np.ndarray) -> bool:
    return any(np.array_equal(image, other) for other in others)


@settings(deadline=None)
@given(st.permutations(range(COUNT)), st.integers(1, COUNT - 1))
def test_an_image_looks_the_same_in_whatever_batch_it_comes(order: list[int], cut: int) -> None:
    whole = augmented(EVERYTHING)
    for rows in (order[:cut], order[cut:]):
        np.testing.assert_array_equal(augmented(EVERYTHING, rows=rows), whole[rows])


def test_seed_and_epoch_change_every_image() -> None:
    base = augmented(EVERYTHING)
    for other in (augmented(EVERYTHING, seed=2), augmented(EVERYTHING, epoch=1)):
        assert (other != base).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", [name for name in EACH if name not in OFF])
def test_switching_one_on_does_not_change_the_numbers_of_the_others(name: str) -> None:
    key = DrawKey(1, 0, IDS[:COUNT])
    alone = build_policy(AugmentConfig(**{**OFF, name: EACH[name]})).sample(key, side_px=SIDE)
    base = build_policy(AugmentConfig()).sample(key, side_px=SIDE)
    both = build_policy(AugmentConfig(**{name: EACH[name]})).sample(key, side_px=SIDE)
    assert base.warp is not None
    assert both.warp is not None
    if alone.warp is None:
        np.testing.assert_array_equal(both.warp, base.warp)
    else:  # the crop and the vertical flip come before rotation and zoom, or between them and the horizontal flip
        np.testing.assert_allclose(np.linalg.det(both.warp), np.linalg.det(alone.warp) * np.linalg.det(base.warp))
    np.testing.assert_equal(both.colors, alone.colors)
    if alone.patches and both.patches:
        np.testing.assert_equal(vars(both.patches), vars(alone.patches))
    assert (alone.patches is None) == (both.patches is None)


def test_geometry_is_composed_in_the_order_of_the_policy() -> None:
    key = DrawKey(1, 0, IDS[:COUNT])
    flipped, turned = ((each,) for each in (Flip("horizontal"), Rotation(0.2)))
    both = Policy(geometry=flipped + turned).sample(key, side_px=SIDE).warp
    parts = [Policy(geometry=each).sample(key, side_px=SIDE).warp for each in (flipped, turned)]
    np.testing.assert_allclose(both, affine.compose([part for part in parts if part is not None]))
