"""What a recipe does to each image, as one value: its numbers for a batch are sampled apart from being applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.augment import affine, color
from pipelines.augment.affine import Flip, Geometric, RandomResizedCrop, Rotation, Shear, Translation, Zoom
from pipelines.augment.color import Brightness, Coloring, Contrast, Hue, Saturation
from pipelines.augment.engines import Interpolation, recolor_opencv, recolor_tensorflow, warp_opencv, warp_tensorflow
from pipelines.augment.erasing import Erasing, Patches
from pipelines.augment.philox import DrawKey, draw_uniforms
from pipelines.augment.rand_augment import RandAugment
from pipelines.config import AugmentConfig

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageNumbers:
    """What is done to each image of a batch. None: nothing of that kind to any.

    Attributes:
        warp: float64 [B, 3, 3], see `affine`.
        colors: float64 [B, 7, 7], see `color`.
        patches: what is erased.
    """

    warp: NDArray[np.float64] | None
    colors: NDArray[np.float64] | None
    patches: Patches | None


@dataclass(frozen=True)
class Policy:
    """Augmentations in the order in which they are applied: geometry as one warp, colours as one pass, then erasing."""

    geometry: tuple[Geometric, ...] = ()
    coloring: tuple[Coloring, ...] = ()
    rand_augment: RandAugment | None = None
    erasing: Erasing | None = None
    engine: Literal["opencv", "tensorflow"] = "opencv"
    interpolation: Interpolation = "bilinear"

    def sample(self, key: DrawKey, *, side_px: int) -> ImageNumbers:
        """The numbers of a batch: a pure function, image by image, of seed, epoch and image id."""
        requests = [(each.stream, 1) for each in self.geometry] + [(each.stream, 1) for each in self.coloring]
        if self.rand_augment:
            requests.append((self.rand_augment.stream, self.rand_augment.blocks))
        if self.erasing:
            requests.append((self.erasing.stream, self.erasing.blocks))
        uniforms = iter(draw_uniforms(key, requests))
        warps = [each.matrices(each.sample(next(uniforms)), side_px=side_px) for each in self.geometry]
        colors = [each.matrices(each.sample(next(uniforms))) for each in self.coloring]
        if self.rand_augment:
            chosen = self.rand_augment.sample(next(uniforms))
            warps.append(self.rand_augment.warps(chosen, side_px=side_px))
            colors.append(self.rand_augment.colors(chosen))
        return ImageNumbers(
            warp=affine.compose(warps) if warps else None,
            colors=color.compose(colors) if colors else None,
            patches=self.erasing.sample(next(uniforms), side_px=side_px) if self.erasing else None,
        )

    def apply(self, images: Images, numbers: ImageNumbers) -> Images:
        """Augments a batch uint8 [B, S, S, 3] into another one; `images` stay as they are."""
        warp, recolor = _ENGINES[self.engine]
        if numbers.warp is not None:
            images = warp(images, numbers.warp, self.interpolation)
        if numbers.colors is not None:
            images = recolor(images, numbers.colors)
        if self.erasing and numbers.patches is not None:
            images = self.erasing.apply(images, numbers.patches)
        return images

    def augment(self, images: Images, key: DrawKey) -> Images:
        """`sample`, then `apply`."""
        return self.apply(images, self.sample(key, side_px=images.shape[1]))


def build_policy(config: AugmentConfig) -> Policy:
    """What the recipe switches on, in a fixed order.

    The crop comes first, as in Inception's and torchvision's recipes; colours in the order in which the recipe lists them.
    """
    geometry: list[tuple[Any, Geometric]] = [
        (config.random_resized_crop, RandomResizedCrop(config.random_resized_crop)),
        (config.horizontal_flip, Flip("horizontal")),
        (config.vertical_flip, Flip("vertical")),
        (config.rotation, Rotation(config.rotation)),
        (config.zoom, Zoom(config.zoom)),
        (config.translation, Translation(config.translation, config.translation)),
        (config.shear, Shear(config.shear, config.shear)),
    ]
    coloring: list[tuple[Any, Coloring]] = [
        (config.contrast, Contrast(config.contrast)),
        (config.brightness, Brightness(config.brightness)),
        (config.saturation, Saturation(config.saturation)),
        (config.hue, Hue(config.hue)),
    ]
    return Policy(
        geometry=tuple(augmentation for on, augmentation in geometry if on),
        coloring=tuple(augmentation for on, augmentation in coloring if on),
        rand_augment=RandAugment(config.rand_augment, config.rand_augment_magnitude) if config.rand_augment else None,
        erasing=Erasing(config.erasing) if config.erasing else None,
        engine=config.engine,
        interpolation=config.interpolation,
    )


def _eager(function: Callable[..., Any]) -> Callable[..., Images]:
    """A function of tensors as one of arrays; inside `tf.numpy_function` TensorFlow runs eagerly."""

    def run(*arguments: Any) -> Images:
        return np.asarray(function(*arguments))

    return run


_ENGINES: dict[str, tuple[Callable[..., Images], Callable[..., Images]]] = {
    "opencv": (warp_opencv, recolor_opencv),
    "tensorflow": (_eager(warp_tensorflow), _eager(recolor_tensorflow)),
}
