"""Training batches: rows gathered, augmented and, where the recipe mixes images, mixed, with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.augment.mixing import (
    CutMix,
    DrawPartners,
    Mixes,
    MixUp,
    choose,
    draw_balanced,
    draw_examples,
    mix_images,
    mix_labels,
)
from pipelines.augment.philox import DrawKey, Stream, draw_uniforms
from pipelines.augment.policy import Policy, build_policy
from pipelines.by_class import group_by_class
from pipelines.config import AugmentConfig


@dataclass(frozen=True)
class TrainingBatches:
    """Makes batches of the training split: a pure function of the examples asked for and the epoch.

    Attributes:
        gather: example numbers int64 [B] to a new array uint8 [B, S, S, 3].
        image_ids: uint64 [n], see `pipelines.augment.philox.image_ids`.
        labels: int64 [n], in [0, num_classes).
        num_classes: width of soft labels.
        config: what to do to them; only `where: dataset` is done here.
        seed: the recipe's.
        sampling: how partners are drawn: `shuffle` all images alike, `balanced` all classes.
    """

    gather: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    image_ids: NDArray[np.uint64]
    labels: NDArray[np.int64]
    num_classes: int
    config: AugmentConfig
    seed: int
    sampling: Literal["shuffle", "balanced"] = "shuffle"

    @property
    def label_dtype(self) -> Any:
        """float32 where labels are [B, num_classes], else int64."""
        return np.float32 if self.config.soft_labels else np.int64

    @property
    def label_shape(self) -> tuple[int | None, ...]:
        """Of the labels of a batch of any size."""
        return (None, self.num_classes) if self.config.soft_labels else (None,)

    def load(
        self, examples: NDArray[np.int64], epoch: int, showings: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Images uint8 [B, S, S, 3] and labels of some examples, int64 [B], as they are in an epoch, from 0.

        `showings` are as in `DrawKey`.
        """
        images = self._augmented(examples, epoch, showings)
        if not self.config.soft_labels:
            return images, self.labels[examples]
        mixes = self._sample_mixes(self._key(examples, epoch, showings), side_px=images.shape[1])
        images = mix_images(images, self._augmented(mixes.partners, epoch), mixes)
        labels = mix_labels(self.labels[examples], self.labels[mixes.partners], mixes, num_classes=self.num_classes)
        return images, labels

    def partners(
        self, examples: NDArray[np.int64], epoch: int, showings: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64] | None:
        """Examples int64 [B] that these are mixed with, or None where images are not mixed. Arguments as those of `load`."""
        if not self.config.soft_labels:
            return None
        return self._sample_mixes(self._key(examples, epoch, showings), side_px=1).partners

    @cached_property
    def _policy(self) -> Policy:
        return build_policy(self.config)

    @cached_property
    def _draw_partners(self) -> DrawPartners:
        if self.sampling == "balanced":
            return partial(draw_balanced, by_class=group_by_class(self.labels))
        return partial(draw_examples, examples=len(self.labels))

    def _key(self, examples: NDArray[np.int64], epoch: int, showings: NDArray[np.int64] | None) -> DrawKey:
        return DrawKey(self.seed, int(epoch), self.image_ids[examples], showings)

    def _augmented(
        self, examples: NDArray[np.int64], epoch: int, showings: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        images = self.gather(examples)
        if self.config.where != "dataset":
            return images
        return self._policy.augment(images, self._key(examples, epoch, showings))

    def _sample_mixes(self, key: DrawKey, *, side_px: int) -> Mixes:
        """By MixUp or CutMix; where the recipe has both, by one of them for each image."""
        mixup, cutmix = MixUp(self.config.mixup), CutMix(self.config.cutmix)
        requests = [(mixup.stream, 1), (cutmix.stream, 1), (Stream.MIXUP_OR_CUTMIX, 1)]
        for_mixup, for_cutmix, for_choice = draw_uniforms(key, requests)
        if not self.config.cutmix:
            return mixup.sample(for_mixup, draw_partners=self._draw_partners, side_px=side_px)
        pasted = cutmix.sample(for_cutmix, draw_partners=self._draw_partners, side_px=side_px)
        if not self.config.mixup:
            return pasted
        return choose(mixup.sample(for_mixup, draw_partners=self._draw_partners, side_px=side_px), pasted, for_choice)
