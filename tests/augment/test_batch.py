"""Training batches: labels beside their images, and partners as they look in the same epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.augment.batch import TrainingBatches
from pipelines.augment.philox import DrawKey
from pipelines.augment.policy import build_policy
from pipelines.config import AugmentConfig
from tests.augment.reference import IDS, PHOTOS

COUNT = len(PHOTOS)
LABELS = np.array([0, 1, 2, 0, 1, 2])
EXAMPLES = np.arange(COUNT)


def batches(config: AugmentConfig) -> TrainingBatches:
    return TrainingBatches(lambda rows: PHOTOS[rows], IDS[:COUNT], LABELS, 3, config=config, seed=1)


def test_hard_labels_come_with_augmented_images() -> None:
    config = AugmentConfig()
    images, labels = batches(config).load(EXAMPLES[::-1], 4)
    np.testing.assert_array_equal(labels, LABELS[::-1])
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, build_policy(config).augment(PHOTOS[::-1], DrawKey(1, 4, IDS[:COUNT][::-1])))


@pytest.mark.parametrize("where", ["model", "none"])
def test_nothing_is_done_where_the_recipe_says_so(where: Any) -> None:
    images, labels = batches(AugmentConfig(where=where)).load(EXAMPLES, 0)
    np.testing.assert_array_equal(images, PHOTOS)
    np.testing.assert_array_equal(labels, LABELS)


def test_a_mixed_image_is_made_of_two_as_they_look_in_that_epoch() -> None:
    config = AugmentConfig(cutmix=1.0)
    whole = batches(config)
    plain, _ = batches(AugmentConfig()).load(EXAMPLES, 2)
    images, labels = whole.load(EXAMPLES, 2)
    assert (labels.shape, labels.dtype) == ((COUNT, 3), whole.label_dtype)
    for example in EXAMPLES:
        own = (images[example] == plain[example]).all(axis=2)
        assert own.any() or labels[example, LABELS[example]] < 0.1
        partners = [(images[example] == plain[other]).all(axis=2) for other in EXAMPLES]
        assert any((own | partner).all() for partner in partners)


def test_with_both_some_images_are_blended_and_some_pasted() -> None:
    config = AugmentConfig(horizontal_flip=False, rotation=0, zoom=0, mixup=0.8, cutmix=0.8)
    whole = batches(config)
    untouched = [(whole.load(EXAMPLES, epoch)[0] == PHOTOS).all(axis=3).mean(axis=(1, 2)) for epoch in range(20)]
    own = np.concatenate(untouched)
    assert (own < 0.1).any()
    assert ((own > 0.2) & (own < 0.8)).any()


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_partners_follow_the_sampling(mixing: Any) -> None:
    labels = np.array([0] * (COUNT - 1) + [1])
    shares = {}
    for sampling in ("shuffle", "balanced"):
        config = AugmentConfig(where="dataset", horizontal_flip=False, rotation=0, zoom=0, **mixing)
        whole = TrainingBatches(lambda rows: PHOTOS[rows], IDS[:COUNT], labels, 2, config=config, seed=1, sampling=sampling)  # type: ignore[arg-type]
        epochs = [whole.load(EXAMPLES[:-1], epoch)[1] for epoch in range(60)]
        shares[sampling] = (np.concatenate(epochs)[:, 1] > 0).mean()  # images of class 0 that have a partner of class 1
    assert shares["shuffle"] == pytest.approx(1 / COUNT, abs=0.06)
    assert shares["balanced"] == pytest.approx(1 / 2, abs=0.09)
