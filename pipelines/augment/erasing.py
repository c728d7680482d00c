"""Random erasing: a rectangle of the image becomes noise."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.aligned import new_batch
from pipelines.augment.philox import Stream, Uniforms

AREA = (0.02, 0.33)  # Keras's default: the square of either length, in sides
# A uniform byte to the byte of a normal variate times 255, clipped to [0, 255]: Keras's default fill.
_NORMAL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])
_NOISE = np.clip(255 * _NORMAL, 0, 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Patches:
    """The rectangles that are erased from the images of a batch, empty where none is.

    Attributes:
        boxes: int64 [B, 4]: left, top, right, bottom, px; right and bottom are the first ones outside.
        noise: uint64 [B], what the noise in each is computed from.
    """

    boxes: NDArray[np.int64]
    noise: NDArray[np.uint64]


@dataclass(frozen=True)
class Erasing:
    """Erases a rectangle with a probability. Conventions and distributions of Keras's RandomErasing((p, p)).

    Keras draws the noise of each pixel afresh from a normal distribution; here it is drawn in 256 steps of equal probability.
    """

    probability: float
    stream: ClassVar[Stream] = Stream.ERASING
    blocks: ClassVar[int] = 2

    def sample(self, uniforms: Uniforms, *, side_px: int) -> Patches:
        """The rectangles of a batch, from uniform numbers float64 [B, 8] in (0, 1)."""
        lengths = np.sqrt(AREA[0] + (AREA[1] - AREA[0]) * uniforms[:, 1:3])
        boxes = random_boxes(lengths, uniforms[:, 3:5], side_px=side_px)
        boxes[uniforms[:, 0] >= self.probability] = 0
        high, low = (uniforms[:, 5:7] * 2.0**32).astype(np.uint64).T
        return Patches(boxes, high << np.uint64(32) | low)

    def apply(self, images: NDArray[np.uint8], patches: Patches) -> NDArray[np.uint8]:
        """Erases the rectangles: uint8 [B, S, S, 3] to a new array of that kind."""
        result = new_batch(images.shape, np.uint8)
        result[:] = images
        for image, (left, top, right, bottom), noise in zip(result, patches.boxes, patches.noise, strict=True):
            patch = image[top:bottom, left:right]
            if patch.size:
                words = np.random.Philox(key=int(noise)).random_raw(-(-patch.size // 8))
                patch[:] = _NOISE[words.view(np.uint8)[: patch.size]].reshape(patch.shape)
        return result


def random_boxes(lengths: NDArray[np.float64], places: Uniforms, *, side_px: int) -> NDArray[np.int64]:
    """Rectangles somewhere inside the image: those pixels whose number lies in [start, start + length), as Keras counts.

    Args:
        lengths: float64 [B, 2], width and height in sides, in [0, 1].
        places: float64 [B, 2] in (0, 1): 0 is at the left or top edge, 1 at the other.
        side_px: of the images.

    Returns:
        int64 [B, 4]: left, top, right, bottom; right and bottom are the first ones outside.
    """
    starts = places * (1 - lengths)
    edges = side_px * np.concatenate([starts, starts + lengths], axis=1)
    return np.asarray(np.ceil(edges), np.int64)
