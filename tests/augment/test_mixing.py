"""MixUp and CutMix: pixels, labels and distributions of the Keras layers, and partners from the whole split."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest

from pipelines.augment.mixing import CutMix, Mixes, MixUp, choose, draw_balanced, draw_examples, mix_images, mix_labels
from pipelines.by_class import group_by_class
from tests.augment.reference import PHOTOS, SIDE, assert_same_distribution, assert_same_pixels, drawn_by_keras, uniforms_of

COUNT = len(PHOTOS)
LABELS = np.array([0, 1, 2, 3, 0, 1])
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]


def test_mixup_s_pixels_and_labels_are_keras_s_for_the_same_numbers() -> None:
    layer = keras.layers.MixUp(alpha=0.4, seed=2)
    transformation = drawn_by_keras(layer, COUNT)
    shares = np.asarray(transformation["mix_weight"], np.float64)
    order = np.asarray(transformation["permutation_order"])
    mixes = Mixes(order, shares, np.zeros((COUNT, 4), np.int64), shares)
    images = np.asarray(layer.transform_images(PHOTOS.astype(np.float32), transformation))
    assert_same_pixels(mix_images(PHOTOS, PHOTOS[order], mixes), images, most=1.01)
    labels = np.asarray(layer.transform_labels(ONE_HOT, transformation))
    np.testing.assert_allclose(mix_labels(LABELS, LABELS[order], mixes, num_classes=4), labels, atol=1e-6)


def test_cutmix_pastes_a_rectangle_and_shares_the_label_by_its_area() -> None:
    cutmix = CutMix(1.0)
    mixes = cutmix.sample(uniforms_of(cutmix)[:COUNT], draw_partners=partial(draw_examples, examples=COUNT), side_px=SIDE)
    mixed = mix_images(PHOTOS, PHOTOS[mixes.partners], mixes)
    for place in range(COUNT):
        left, top, right, bottom = mixes.boxes[place]
        own = np.ones((SIDE, SIDE), bool)
        own[top:bottom, left:right] = False
        np.testing.assert_array_equal(mixed[place][own], PHOTOS[place][own])
        np.testing.assert_array_equal(mixed[place][~own], PHOTOS[mixes.partners[place]][~own])
        assert mixes.shares[place] == pytest.approx(own.mean())
    labels = mix_labels(LABELS, LABELS[mixes.partners], mixes, num_classes=4)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_distributed_as_keras_s(alpha: float) -> None:
    mixup, cutmix, draw = MixUp(alpha), CutMix(alpha), partial(draw_examples, examples=10)
    blended = mixup.sample(uniforms_of(mixup), draw_partners=draw, side_px=SIDE).shares
    assert_same_distribution(blended, drawn_by_keras(keras.layers.MixUp(alpha, seed=1), len(blended), side=2)["mix_weight"])
    # Keras's shares are not cut to whole pixels: next to none on a large image, and the rest is rounded away.
    pasted = cutmix.sample(uniforms_of(cutmix), draw_partners=draw, side_px=4096).shares[:1000]
    theirs = drawn_by_keras(keras.layers.CutMix((alpha, alpha), seed=1), 1000)["mix_weight"]
    assert_same_distribution(pasted.round(2), np.round(theirs, 2))


def test_partners_are_drawn_from_the_whole_split_alike() -> None:
    mixup = MixUp(0.2)
    draw = partial(draw_examples, examples=5)
    partners = mixup.sample(uniforms_of(mixup), draw_partners=draw, side_px=SIDE).partners
    np.testing.assert_allclose(np.bincount(partners, minlength=5) / len(partners), 0.2, atol=0.03)
    almost_one = np.array([1 - 2.0**-33])
    assert draw_examples(almost_one, 2**31).tolist() == [2**31 - 1]


def test_balanced_partners_are_of_each_class_alike_and_within_it_each_image() -> None:
    labels = np.array([2, 0, 2, 2, 7, 2])  # no image is of class 1, or of 3 to 6
    drawn = draw_balanced(uniforms_of(MixUp(0.2))[:, 0], group_by_class(labels))
    shares = np.bincount(drawn, minlength=6) / len(drawn)
    np.testing.assert_allclose(shares, [1 / 12, 1 / 3, 1 / 12, 1 / 12, 1 / 3, 1 / 12], atol=0.03)
    ends = draw_balanced(np.array([2.0**-33, 1 - 2.0**-33]), group_by_class(np.arange(6) // 2))
    assert ends.tolist() == [0, 5]


def test_of_both_each_image_takes_one_whole() -> None:
    uniforms = np.array([[0.1], [0.9]])
    blended = Mixes(np.array([1, 2]), np.array([0.3, 0.4]), np.zeros((2, 4), np.int64), np.array([0.3, 0.4]))
    pasted = Mixes(np.array([3, 4]), np.ones(2), np.ones((2, 4), np.int64), np.array([0.5, 0.6]))
    chosen = choose(blended, pasted, uniforms)
    assert chosen.partners.tolist() == [1, 4]
    assert chosen.blend.tolist() == [0.3, 1.0]
    assert chosen.boxes.tolist() == [[0] * 4, [1] * 4]
    assert chosen.shares.tolist() == [0.3, 0.6]
