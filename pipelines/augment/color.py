"""Contrast, brightness, saturation and hue: any number of them is one pass over the pixels.

Each is a frozen dataclass that turns uniform numbers into its own (`sample`) and these into matrices (`matrices`).
All four are affine in a pixel and the image's mean, so a matrix acts on the vector (pixel, mean of the image, 1) of 3 + 3 + 1
entries, and the product of several is known before any image is: numbers stay apart from pixels even for contrast, which
is about the mean. All four leave grey grey and commute, so their order does not matter.
`pipelines.augment.engines` applies the product.

Distributions are those of Keras's RandomContrast (as documented: see docs/decisions/0009), RandomBrightness, RandomSaturation
and RandomHue. On purpose apart from Keras: values are clipped to [0, 255] once at the end, not after each; saturation and
hue are linear maps that keep the luma, where Keras goes through HSV, which is no linear map and changes the lightness seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.augment.affine import Matrices, Numbers, symmetric
from pipelines.augment.philox import Stream, Uniforms

VALUE_RANGE = 255.0
# Rec. 601 luma, the grey of JPEG, Pillow and TensorFlow, and NTSC's YIQ, whose first row it is.
LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class Coloring(Protocol):
    """What every augmentation that changes colours in place can do. Both functions are pure."""

    @property
    def stream(self) -> Stream:
        """Where its uniform numbers come from, one block per image."""

    def sample(self, uniforms: Uniforms) -> Numbers:
        """Its numbers float64 [B, 1] from uniform ones float64 [B, 4] in (0, 1)."""

    def matrices(self, numbers: Numbers) -> Matrices:
        """Matrices float64 [B, 7, 7] on (red, green, blue, their means, 1), values in [0, 255]."""


@dataclass(frozen=True)
class Contrast:
    """Stretches each channel's distance from its mean over the image."""

    factor: float
    stream: ClassVar[Stream] = Stream.CONTRAST

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: the factor on the distance, 1 +- `factor`."""
        return 1 + symmetric(uniforms[:, :1], self.factor)

    def matrices(self, numbers: Numbers) -> Matrices:
        """Factor and mean, channel by channel."""
        factor = numbers[:, :, None] * np.eye(3)
        return _matrices(factor, from_mean=np.eye(3) - factor)


@dataclass(frozen=True)
class Brightness:
    """Makes all values lighter or darker alike."""

    factor: float
    stream: ClassVar[Stream] = Stream.BRIGHTNESS

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: the shift, at most `factor` of the value range either way."""
        return symmetric(uniforms[:, :1], self.factor * VALUE_RANGE)

    def matrices(self, numbers: Numbers) -> Matrices:
        """The shift alone."""
        return _matrices(np.tile(np.eye(3), (len(numbers), 1, 1)), shift=numbers)


@dataclass(frozen=True)
class Saturation:
    """Stretches each pixel's distance from its own grey."""

    factor: float
    stream: ClassVar[Stream] = Stream.SATURATION

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: the factor on the distance, f / (1 - f) with Keras's f uniform in .5 +- `factor` / 2."""
        fraction = 0.5 + symmetric(uniforms[:, :1], self.factor / 2)
        return fraction / (1 - fraction)

    def matrices(self, numbers: Numbers) -> Matrices:
        """Factor and grey."""
        factor = numbers[:, :, None]
        return _matrices(factor * np.eye(3) + (1 - factor) * LUMA)


@dataclass(frozen=True)
class Hue:
    """Turns the hues.

    The plane of chrominance of YIQ is turned: luma and the distance from grey stay as they are.
    """

    factor: float
    stream: ClassVar[Stream] = Stream.HUE

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: the turn, radians, at most `factor` half turns either way; above 0 it takes red to yellow."""
        return symmetric(uniforms[:, :1], np.pi * self.factor)

    def matrices(self, numbers: Numbers) -> Matrices:
        """To YIQ, turned there, and back."""
        turn = np.tile(np.eye(3), (len(numbers), 1, 1))
        cosine, sine = np.cos(numbers[:, 0]), np.sin(numbers[:, 0])
        turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, sine, -sine, cosine
        return _matrices(_FROM_YIQ @ turn @ _TO_YIQ)


def compose(matrices: Sequence[Matrices]) -> Matrices:
    """One pass for several, given in the order in which they are applied to the image."""
    return functools.reduce(lambda first, then: then @ first, matrices)


def _matrices(
    pixel: NDArray[np.float64],
    *,
    from_mean: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
) -> Matrices:
    """Takes a pixel to `pixel` @ pixel + `from_mean` @ mean + `shift`; the mean goes where a pixel of its value goes."""
    matrices = np.zeros((len(pixel), 7, 7))
    matrices[:, :3, :3] = matrices[:, 3:6, 3:6] = pixel
    if from_mean is not None:
        matrices[:, :3, 3:6] = from_mean
        matrices[:, 3:6, 3:6] += from_mean
    if shift is not None:
        matrices[:, :6, 6] = shift
    matrices[:, 6, 6] = 1
    return matrices
