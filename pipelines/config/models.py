"""The network."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.config.section import Section
from pipelines.defaults import FROM_SCRATCH

BackboneName = Literal[
    "EfficientNetLite0",
    "MobileNetV2",
    "MobileNetV3Large",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "Xception",
    "ConvNeXtTiny",
    "SmallCNN",
    "SmallSeparableCNN",
]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)

Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=26)]  # layers are called block1a to block1z


class BlocksConfig(Section):
    """The blocks of convolutions that a from-scratch model is made of, and what shrinks the image between them.

    As in VGG: each block repeats convolutions of one width, and each is half as wide and high as the one before.
    """

    widths: tuple[Width, ...] = Field((32, 64, 128), min_length=1, max_length=6, description="filters in each block")
    depths: tuple[Depth, ...] = Field((2, 2, 1), min_length=1, max_length=6, description="convolutions in each block")
    pooling: Literal["max", "average", "stride"] = Field(
        "max", description="between blocks; stride: a convolution of stride 2 instead (All-CNN, arXiv 1412.6806)"
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="between blocks, after the pooling (Keras's CIFAR-10 example: .25)")

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if len(self.widths) != len(self.depths):
            raise ValueError(
                "`widths` and `depths` must name equally many blocks;"
                f" received {len(self.widths)} widths and {len(self.depths)} depths"
            )
        return self


class ModelConfig(Section):
    """The backbone and the head that is put on it: global pooling, a hidden layer where there is one, dropout, logits.

    With a from-scratch backbone other defaults hold: see `pipelines.defaults`.
    """

    backbone: BackboneName = "EfficientNetLite0"
    weights: str = Field("imagenet", min_length=1, description="imagenet | none | path of a Keras weights file")
    global_pooling: Literal["average", "max"] = Field("average", description="of the feature map (Keras's tutorials: average)")
    hidden_units: int = Field(0, ge=0, le=65_536, description="of a ReLU layer before the last one; 0 leaves it out")
    dropout: float = Field(0.3, ge=0, lt=1, description="before the last layer")
    blocks: BlocksConfig = BlocksConfig()

    @property
    def from_scratch(self) -> bool:
        """Whether there is nothing pretrained: all of the model learns, BatchNormalization too."""
        return self.backbone in FROM_SCRATCH

    @model_validator(mode="after")
    def _suit_the_backbone(self) -> Self:
        if self.from_scratch and self.weights == "imagenet":
            raise ValueError(f"`weights` must be none or a file for {self.backbone}, which has no ImageNet weights")
        if not self.from_scratch and self.blocks != BlocksConfig():
            names = " or ".join(FROM_SCRATCH)
            raise ValueError(f"`blocks` is for {names} alone; {self.backbone} has blocks of its own: set `backbone` too")
        return self
