"""Flip, rotation, zoom, translation, shear and random resized crop: any number of them is one warp, one interpolation.

Each is a frozen dataclass that turns uniform numbers into its own numbers (`sample`) and these into matrices (`matrices`);
`pipelines.augment.engines` applies the product. Conventions and distributions are those of Keras's RandomFlip,
RandomRotation, RandomZoom, RandomTranslation and RandomShear with `fill_mode="reflect"`.

A matrix takes a pixel (x, y, 1) of the result to the place in the input that it shows, in px from the centre of the top
left pixel. Where one augmentation would have shown what lies outside the image reflected and the next would have moved that
away again, a single warp sees the image itself: only the last result counts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.augment.philox import Stream, Uniforms

Numbers = NDArray[np.float64]
Matrices = NDArray[np.float64]

ASPECT_RATIO = 4 / 3  # of a random resized crop, at most; Inception's


class Geometric(Protocol):
    """What every augmentation that moves pixels can do. Both functions are pure."""

    @property
    def stream(self) -> Stream:
        """Where its uniform numbers come from, one block per image."""

    def sample(self, uniforms: Uniforms) -> Numbers:
        """Its numbers float64 [B, k] from uniform ones float64 [B, 4] in (0, 1)."""

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """Sampling matrices float64 [B, 3, 3] for square images."""


@dataclass(frozen=True)
class Flip:
    """Mirrors every second image left-right ("horizontal") or top-bottom ("vertical")."""

    direction: Literal["horizontal", "vertical"]

    @property
    def stream(self) -> Stream:
        """One of its own for each direction."""
        return Stream.HORIZONTAL_FLIP if self.direction == "horizontal" else Stream.VERTICAL_FLIP

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: -1 mirrored, 1 not."""
        return np.where(uniforms[:, :1] <= 0.5, -1.0, 1.0)

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """The diagonal of mirrored axes, about the centre."""
        linear = np.tile(np.eye(2), (len(numbers), 1, 1))
        axis = 0 if self.direction == "horizontal" else 1
        linear[:, axis, axis] = numbers[:, 0]
        return _about_centre(linear, side_px)


@dataclass(frozen=True)
class Rotation:
    """Turns about the centre by at most `factor` full turns either way."""

    factor: float
    stream: ClassVar[Stream] = Stream.ROTATION

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: the angle, radians, counter-clockwise."""
        return symmetric(uniforms[:, :1], 2 * np.pi * self.factor)

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """The rotation about the centre."""
        cosine, sine = np.cos(numbers), np.sin(numbers)
        return _about_centre(np.concatenate([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2), side_px)


@dataclass(frozen=True)
class Zoom:
    """Scales about the centre, both axes alike."""

    factor: float
    stream: ClassVar[Stream] = Stream.ZOOM

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 1]: 1 +- `factor`, on the distances that are sampled; above 1 zooms out."""
        return 1 + symmetric(uniforms[:, :1], self.factor)

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """The scaling about the centre."""
        return _about_centre(numbers[:, :, None] * np.eye(2), side_px)


@dataclass(frozen=True)
class Translation:
    """Shifts by at most `x` and `y` sides either way."""

    x: float
    y: float
    stream: ClassVar[Stream] = Stream.TRANSLATION

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 2]: shift right, shift down, in sides."""
        return symmetric(uniforms[:, :2], np.array([self.x, self.y]))

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """The shift alone."""
        return _homogeneous(np.tile(np.eye(2), (len(numbers), 1, 1)), -side_px * numbers)


@dataclass(frozen=True)
class Shear:
    """Shears about the top left pixel, as Keras does, by at most `x` px per px of y and `y` px per px of x."""

    x: float
    y: float
    stream: ClassVar[Stream] = Stream.SHEAR

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 2]: shift in x per px of y, shift in y per px of x."""
        return symmetric(uniforms[:, :2], np.array([self.x, self.y]))

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:  # noqa: ARG002 - the others need it
        """The shear about the origin."""
        linear = np.tile(np.eye(2), (len(numbers), 1, 1))
        linear[:, 0, 1], linear[:, 1, 0] = numbers[:, 0], numbers[:, 1]
        return _homogeneous(linear, np.zeros_like(numbers))


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts a rectangle out and stretches it to the whole image.

    The area is uniform in [`area`, 1], the logarithm of width / height uniform up to 4:3 either way (Inception; torchvision's
    layer of this name). A rectangle longer than the image is cut to the image's length, where torchvision draws again.
    """

    area: float
    stream: ClassVar[Stream] = Stream.RANDOM_RESIZED_CROP

    def sample(self, uniforms: Uniforms) -> Numbers:
        """[B, 4]: width, height, left, top, in sides."""
        area = self.area + (1 - self.area) * uniforms[:, 0]
        stretch = np.sqrt(np.exp(symmetric(uniforms[:, 1], np.log(ASPECT_RATIO))))
        lengths = np.minimum(np.sqrt(area)[:, None] * np.stack([stretch, 1 / stretch], axis=1), 1)
        return np.concatenate([lengths, (1 - lengths) * uniforms[:, 2:4]], axis=1)

    def matrices(self, numbers: Numbers, *, side_px: int) -> Matrices:
        """The rectangle's place in the image."""
        lengths, starts = numbers[:, :2], numbers[:, 2:]
        # Edges map to edges, and a pixel's centre lies half a pixel inside.
        return _homogeneous(lengths[:, :, None] * np.eye(2), side_px * starts + (lengths - 1) / 2)


def symmetric(uniforms: Uniforms, bound: float | Numbers) -> Numbers:
    """Stretches uniform numbers in (0, 1) to (-bound, bound)."""
    return (2 * uniforms - 1) * bound


def compose(matrices: Sequence[Matrices]) -> Matrices:
    """One warp for several, given in the order in which they are applied to the image."""
    return functools.reduce(np.matmul, matrices)


def _about_centre(linear: NDArray[np.float64], side_px: int) -> Matrices:
    """Linear maps [B, 2, 2] that leave the middle of the image where it is."""
    centre = (side_px - 1) / 2
    return _homogeneous(linear, centre - centre * linear.sum(axis=2))


def _homogeneous(linear: NDArray[np.float64], offset: NDArray[np.float64]) -> Matrices:
    matrices = np.zeros((len(linear), 3, 3))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = offset
    matrices[:, 2, 2] = 1
    return matrices
