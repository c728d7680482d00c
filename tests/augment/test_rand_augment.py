"""The RandAugment policy: what is drawn, how strong, and that it stays one warp and one pass."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.augment import affine
from pipelines.augment.affine import Rotation, Shear
from pipelines.augment.color import Contrast
from pipelines.augment.rand_augment import RandAugment
from tests.augment.reference import MANY, SIDE, uniforms_of

IDENTITY, ROTATION, SHEAR_X, CONTRAST = 0, 1, 2, 6


def test_every_operation_comes_equally_often_with_either_sign() -> None:
    policy = RandAugment(2, 0.9)
    drawn = policy.sample(uniforms_of(policy, blocks=2))
    assert drawn.shape == (MANY, 2, 2)
    operations = drawn[:, :, 0].astype(int)
    np.testing.assert_allclose(np.bincount(operations.ravel(), minlength=9) / operations.size, 1 / 9, atol=0.02)
    assert set(np.unique(drawn[:, :, 1])) == {0, 1}
    assert drawn[:, :, 1].mean() == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(operations.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_operations_are_applied_in_turn_at_full_strength() -> None:
    policy = RandAugment(3, 0.5)
    numbers = np.array([[[ROTATION, 1], [CONTRAST, 0], [SHEAR_X, 0]], [[IDENTITY, 1], [IDENTITY, 0], [IDENTITY, 1]]], float)
    angle, shift = np.array([[np.deg2rad(15)]]), np.array([[-0.15, 0]])
    turned = Rotation(1).matrices(angle, side_px=SIDE)
    sheared = Shear(1, 1).matrices(shift, side_px=SIDE)
    warps, colors = policy.warps(numbers, side_px=SIDE), policy.colors(numbers)
    np.testing.assert_allclose(warps[0], affine.compose([turned, sheared])[0], atol=1e-9)
    np.testing.assert_allclose(colors[0], Contrast(1).matrices(np.array([[0.55]]))[0], atol=1e-9)
    np.testing.assert_array_equal(warps[1], np.eye(3))
    np.testing.assert_array_equal(colors[1], np.eye(7))


def test_the_order_of_what_is_drawn_matters_within_an_image() -> None:
    policy = RandAugment(2, 1.0)
    one_way, other_way = [[ROTATION, 1], [SHEAR_X, 1]], [[SHEAR_X, 1], [ROTATION, 1]]
    warps = policy.warps(np.array([one_way, other_way], float), side_px=SIDE)
    turned = Rotation(1).matrices(np.array([[np.pi / 6]]), side_px=SIDE)
    sheared = Shear(1, 1).matrices(np.array([[0.3, 0.0]]), side_px=SIDE)
    np.testing.assert_allclose(warps[:1], affine.compose([turned, sheared]), atol=1e-9)
    np.testing.assert_allclose(warps[1:], affine.compose([sheared, turned]), atol=1e-9)


def test_magnitude_zero_changes_nothing() -> None:
    policy = RandAugment(2, 0.0)
    numbers = policy.sample(uniforms_of(policy, blocks=2)[:200])
    np.testing.assert_allclose(policy.warps(numbers, side_px=SIDE), np.tile(np.eye(3), (200, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(policy.colors(numbers), np.tile(np.eye(7), (200, 1, 1)), atol=1e-9)
