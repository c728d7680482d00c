"""MixUp and CutMix: two images of the training split become one, and their labels a distribution over the classes.

The partner of an image is drawn from the whole split, as the recipe's sampling draws, by the image's own numbers, and appears
as it is augmented in that epoch itself. So a mixed image depends on (seed, epoch, image) and on the split, but not on the batch
that it falls into. The price is that twice as many rows are read and warped; pairing images within a batch would save that, and
make the result depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from pipelines.aligned import new_batch
from pipelines.augment.erasing import random_boxes
from pipelines.augment.philox import Stream, Uniforms
from pipelines.by_class import ByClass

DrawPartners = Callable[[Uniforms], NDArray[np.int64]]  # uniform numbers [B] in (0, 1) to example numbers int64 [B]


@dataclass(frozen=True)
class Mixes:
    """How the images of a batch are mixed, each with its partner.

    Attributes:
        partners: int64 [B], example numbers.
        blend: float64 [B], the image's own share of every pixel outside the box.
        boxes: int64 [B, 4], the rectangle that shows the partner alone: left, top, right, bottom, px.
        shares: float64 [B], the image's own share of the label.
    """

    partners: NDArray[np.int64]
    blend: NDArray[np.float64]
    boxes: NDArray[np.int64]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class MixUp:
    """Blends two images, the share drawn from Beta(alpha, alpha). Keras's MixUp(alpha); Zhang et al., 2018."""

    alpha: float
    stream: ClassVar[Stream] = Stream.MIXUP

    def sample(self, uniforms: Uniforms, *, draw_partners: DrawPartners, side_px: int) -> Mixes:  # noqa: ARG002 - as CutMix
        """Partners and shares, from uniform numbers float64 [B, 4] in (0, 1)."""
        shares = draw_beta(uniforms[:, 1], self.alpha)
        return Mixes(draw_partners(uniforms[:, 0]), shares, np.zeros((len(uniforms), 4), np.int64), shares)


@dataclass(frozen=True)
class CutMix:
    """Pastes a rectangle of another image, its area drawn from Beta(alpha, alpha). Keras's CutMix((alpha, alpha)).

    Yun et al., 2019. The label's share is the area in whole pixels, where Keras takes the area before it is cut to pixels.
    """

    alpha: float
    stream: ClassVar[Stream] = Stream.CUTMIX

    def sample(self, uniforms: Uniforms, *, draw_partners: DrawPartners, side_px: int) -> Mixes:
        """Partners and rectangles, from uniform numbers float64 [B, 4] in (0, 1)."""
        lengths = np.sqrt(1 - draw_beta(uniforms[:, 1], self.alpha))
        boxes = random_boxes(np.stack([lengths, lengths], axis=1), uniforms[:, 2:4], side_px=side_px)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return Mixes(draw_partners(uniforms[:, 0]), np.ones(len(uniforms)), boxes, 1 - area / side_px**2)


def choose(first: Mixes, second: Mixes, uniforms: Uniforms) -> Mixes:
    """Of two ways to mix each image takes one, by the first of its uniform numbers float64 [B, 4]."""
    take = uniforms[:, 0] < 0.5
    return Mixes(
        np.where(take, first.partners, second.partners),
        np.where(take, first.blend, second.blend),
        np.where(take[:, None], first.boxes, second.boxes),
        np.where(take, first.shares, second.shares),
    )


def mix_images(images: NDArray[np.uint8], partners: NDArray[np.uint8], mixes: Mixes) -> NDArray[np.uint8]:
    """Mixes images with their partners, both uint8 [B, S, S, 3], into a new array of that kind."""
    result = new_batch(images.shape, np.uint8)
    rows = zip(images, partners, result, mixes.blend, mixes.boxes, strict=True)
    for image, partner, mixed, blend, (left, top, right, bottom) in rows:
        cv2.addWeighted(image, blend, partner, 1 - blend, 0, dst=mixed)
        mixed[top:bottom, left:right] = partner[top:bottom, left:right]
    return result


def mix_labels(
    labels: NDArray[np.int64], partners: NDArray[np.int64], mixes: Mixes, *, num_classes: int
) -> NDArray[np.float32]:
    """Soft labels float32 [B, num_classes], each row summing to 1, of labels and partners' labels int64 [B]."""
    classes = np.eye(num_classes)
    share = mixes.shares[:, None]
    return (share * classes[labels] + (1 - share) * classes[partners]).astype(np.float32)


def draw_examples(uniforms: Uniforms, examples: int) -> NDArray[np.int64]:
    """Example numbers int64 [B], each of [0, examples) equally likely, from uniform numbers [B]."""
    return (uniforms * examples).astype(np.int64)


def draw_balanced(uniforms: Uniforms, by_class: ByClass) -> NDArray[np.int64]:
    """Example numbers int64 [B], each class equally likely and so each example within it, from uniform numbers [B]."""
    place = uniforms * len(by_class.sizes)
    label = place.astype(np.int64)
    within = ((place - label) * by_class.sizes[label]).astype(np.int64)
    drawn: NDArray[np.int64] = by_class.examples[by_class.starts[label] + within]
    return drawn


def draw_beta(uniforms: Uniforms, alpha: float) -> NDArray[np.float64]:
    """Variates of Beta(alpha, alpha), by the inverse of its distribution function."""
    return np.asarray(betaincinv(alpha, alpha, uniforms), np.float64)
