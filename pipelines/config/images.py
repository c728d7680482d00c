"""What happens to images on the way into training: how they are changed at random, and kept."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipelines.config.section import Section


class AugmentConfig(Section):
    """Random changes of the training images; never active at inference. Conventions of the Keras layers of the same names.

    A number of 0 switches its augmentation off. What is on by default is what Keras's transfer-learning tutorial applies
    (flip, rotation .1) with a zoom of the same size; everything else is off, since whether it helps depends on the images.
    """

    where: Literal["dataset", "model", "none"] = Field(
        "dataset",
        description="dataset: one warp on uint8 rows; model: Keras layers in the training graph, gone from the export",
    )
    engine: Literal["opencv", "tensorflow"] = Field(
        "opencv", description="of `where: dataset`; the same numbers either way (docs/decisions/0009: OpenCV is the faster one)"
    )
    interpolation: Literal["bilinear", "nearest"] = Field(
        "bilinear",
        description="of moved pixels; nearest shifts by whole px, which leaves images of some 32 px sharp, and rotates roughly",
    )
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = Field(0.1, ge=0, le=0.5, description="largest angle either way, in full turns (Keras's tutorials: .1)")
    zoom: float = Field(0.1, ge=0, lt=1, description="largest relative change of scale either way (Keras's tutorials: .1)")
    translation: float = Field(0.0, ge=0, le=1, description="largest shift either way, as a fraction of the side")
    shear: float = Field(0.0, ge=0, le=1, description="largest shift of a pixel per pixel of the other axis, either way")
    random_resized_crop: float = Field(0.0, ge=0, le=1, description="smallest area cut out, as a fraction (Inception: .08)")
    contrast: float = Field(0.0, ge=0, le=1, description="factor on the distance from the image's mean: 1 +- this")
    brightness: float = Field(0.0, ge=0, le=1, description="largest shift either way, as a fraction of the value range")
    saturation: float = Field(0.0, ge=0, lt=1, description="s: factor between (1-s)/(1+s) and its inverse; Keras's .5 +- s/2")
    hue: float = Field(0.0, ge=0, le=1, description="largest turn of the hue either way, in half turns")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a rectangle of the image becomes noise")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of the Beta distribution of the share (paper, ImageNet: .2)")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of the Beta distribution of the area (paper: 1)")
    rand_augment: int = Field(0, ge=0, le=10, description="operations drawn for each image (paper, ResNet-50: 2)")
    rand_augment_magnitude: float = Field(0.9, ge=0, le=1, description="of these, 1 the strongest (paper, ResNet-50: 9 of 10)")

    @property
    def soft_labels(self) -> bool:
        """Whether training labels are one distribution over the classes per image, float32 [B, classes], not int64 [B]."""
        return self.where == "dataset" and (self.mixup > 0 or self.cutmix > 0)

    @property
    def changes_images(self) -> bool:
        """Whether the data set's images are changed at all."""
        how = {"engine": self.engine, "interpolation": self.interpolation}
        off = AugmentConfig(where="dataset", horizontal_flip=False, rotation=0, zoom=0).model_copy(update=how)
        return self.where == "dataset" and self != off

    @property
    def uncacheable(self) -> str | None:
        """What of this makes a training image depend on more than its own numbers for an epoch, or None."""
        if self.soft_labels:
            return "`augment.mixup` or `augment.cutmix`, which mix images anew in each epoch"
        if self.where == "model":
            return "`augment.where: model`, whose layers run in the training step"
        return None

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        beyond = [name for name in ("random_resized_crop", "mixup", "cutmix", "rand_augment") if getattr(self, name)]
        if self.where == "model" and beyond:
            raise ValueError(
                f"`where: model` has no Keras layer that does {', '.join(beyond)} to images alone;"
                " set it to 0, or use `where: dataset`"
            )
        return self


class StoreConfig(Section):
    """How resized images are kept between epochs and runs."""

    layout: Literal["auto", "decoded", "encoded"] = Field(
        "auto",
        description="decoded: as pixels, the fastest; encoded: as JPEG, for sets too large for that; auto: by the budget",
    )
    budget_gib: float = Field(
        20.0,
        gt=0,
        description="of disk that `auto` may take for decoded pixels: 280,000 images of 160 px, a twelfth of a 256 GB disk",
    )
