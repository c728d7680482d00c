"""RandAugment (Cubuk et al., 2019), of those of its operations that are affine in place or colour.

These are 9 of the paper's 14: identity, rotation, shear and translation along either axis, contrast, brightness and colour
(saturation). Equalize, AutoContrast, Posterize, Solarize and Sharpness are none, and left out: so whatever is drawn still
costs one warp and one colour pass. As in the paper each image draws its own operations (Keras's RandAugment draws them for
the batch), and all have the same magnitude, with a random sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipelines.augment import affine, color
from pipelines.augment.affine import Geometric, Matrices, Numbers, Rotation, Shear, Translation
from pipelines.augment.color import Brightness, Coloring, Contrast, Saturation
from pipelines.augment.philox import PER_BLOCK, Stream, Uniforms

# At magnitude 1: the ranges of AutoAugment (Cubuk et al., 2018, table 6), on which the paper's magnitudes count from 0 to 10.
_TURNS = 30 / 360
_SHEAR = 0.3
_SHIFT = 150 / 331
_ENHANCE = 0.9
# AutoAugment multiplies by 1.9 or .1; Keras's brightness adds, and .9 of a photo's mean, which lies near .45, is about .4.
_BRIGHTEN = 0.4
# Keras's saturation is as much more as it is less: 1.9 or 1 / 1.9 here.
_SATURATE = 0.9 / 2.9


@dataclass(frozen=True)
class RandAugment:
    """Applies `operations` operations to each image, each drawn anew and as strong as `magnitude`, 0 to 1, says."""

    operations: int
    magnitude: float
    stream: ClassVar[Stream] = Stream.RAND_AUGMENT

    @property
    def blocks(self) -> int:
        """Of uniform numbers per image."""
        return self.operations

    @property
    def geometry(self) -> tuple[Geometric, ...]:
        """The operations that move pixels: numbers 1 to 5; 0 is the identity."""
        shear, shift = _SHEAR * self.magnitude, _SHIFT * self.magnitude
        along_axes = (Shear(shear, 0), Shear(0, shear), Translation(shift, 0), Translation(0, shift))
        return (Rotation(_TURNS * self.magnitude), *along_axes)

    @property
    def coloring(self) -> tuple[Coloring, ...]:
        """The operations that change colours: numbers 6 to 8."""
        factors = (_ENHANCE * self.magnitude, _BRIGHTEN * self.magnitude, _SATURATE * self.magnitude)
        return (Contrast(factors[0]), Brightness(factors[1]), Saturation(factors[2]))

    def sample(self, uniforms: Uniforms) -> Numbers:
        """float64 [B, operations, 2]: the operation's number, and 0 or 1 for which end of its range.

        From uniform numbers float64 [B, 4 * operations] in (0, 1).
        """
        slots = uniforms.reshape(len(uniforms), self.operations, PER_BLOCK)
        choices = 1 + len(self.geometry) + len(self.coloring)
        return np.stack([np.floor(slots[:, :, 0] * choices), np.round(slots[:, :, 1])], axis=2)

    def warps(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """What the operations of each image make of its places, in their order: float64 [B, 3, 3]."""
        makers = [_maker_of_warps(operation, side_px) for operation in self.geometry]
        return affine.compose([_chosen(slot, makers, first=1, size=3) for slot in numbers.transpose(1, 0, 2)])

    def colors(self, numbers: Numbers) -> Matrices:
        """What the operations of each image make of its colours, in their order: float64 [B, 7, 7]."""
        makers = [_maker_of_colors(operation) for operation in self.coloring]
        first = 1 + len(self.geometry)
        return color.compose([_chosen(slot, makers, first=first, size=7) for slot in numbers.transpose(1, 0, 2)])


def _maker_of_warps(operation: Geometric, side_px: int) -> Callable[[Uniforms], Matrices]:
    return lambda uniforms: operation.matrices(operation.sample(uniforms), side_px=side_px)


def _maker_of_colors(operation: Coloring) -> Callable[[Uniforms], Matrices]:
    return lambda uniforms: operation.matrices(operation.sample(uniforms))


def _chosen(slot: Numbers, makers: Sequence[Callable[[Uniforms], Matrices]], *, first: int, size: int) -> Matrices:
    """The matrix of each image's operation where `makers`, numbered from `first`, have it; elsewhere the identity."""
    result = np.tile(np.eye(size), (len(slot), 1, 1))
    for number, make in enumerate(makers, start=first):
        rows = np.flatnonzero(slot[:, 0] == number)
        # Uniform numbers at the ends of (0, 1) become the ends of the operation's range.
        result[rows] = make(np.repeat(slot[rows, 1:], PER_BLOCK, axis=1))
    return result
