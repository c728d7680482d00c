"""Small networks of Conv-BatchNorm-ReLU blocks for images of about 32 px, to be trained from scratch.

With the default blocks `SmallCNN` is the usual CNN for CIFAR-10 up to its feature map: two convolutions of 32 filters, two of
64, one of 128, each 3x3, with pooling and dropout between the blocks. `SmallSeparableCNN` is the same with each convolution
but the first in two, as in MobileNet (https://arxiv.org/abs/1704.04861): 3x3 on each channel by itself, then 1x1.
"""

from __future__ import annotations

from typing import Any

import keras

from pipelines.config import BlocksConfig

_KERNEL = 3
# Keras's own .99 looks back over 100 steps: on a small data set those are ten epochs, in which validation is by statistics
# of weights that are gone. PyTorch's default is .9, too.
_BATCH_NORM_MOMENTUM = 0.9


def build_scratch(blocks: BlocksConfig, *, image_size: int, separable: bool) -> keras.Model:
    """Builds the network, without top and without global pooling, from Keras's global seed.

    Args:
        blocks: widths and depths, and what lies between the blocks.
        image_size: side of the square input, in px.
        separable: each convolution but the first in two.

    Returns:
        A model of float32 [B, image_size, image_size, 3] in -1..1 to float32 [B, h, w, last width], at least 0; h is
        image_size, halved once between each two blocks.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels", dtype="float32")
    x = pixels
    for number, (width, depth) in enumerate(zip(blocks.widths, blocks.depths, strict=True), start=1):
        if number > 1:
            x = _shrink(x, f"pool{number - 1}", blocks, separable=separable)
        for repeat in range(depth):
            is_first = number == 1 and repeat == 0  # three channels are too few to be taken one by one
            x = _conv_bn(x, f"block{number}{chr(ord('a') + repeat)}", width, separable=separable and not is_first)
    return keras.Model(pixels, x)


def _shrink(x: Any, name: str, blocks: BlocksConfig, *, separable: bool) -> Any:
    """Halves the width and height, rounded up where a convolution does it and down otherwise, and drops some of the rest."""
    if blocks.pooling == "stride":
        x = _conv_bn(x, name, x.shape[-1], stride=2, separable=separable)
    else:
        pooling = keras.layers.MaxPooling2D if blocks.pooling == "max" else keras.layers.AveragePooling2D
        x = pooling(2, name=name)(x)
    return keras.layers.Dropout(blocks.dropout, name=f"{name}_dropout")(x)


def _conv_bn(x: Any, name: str, width: int, *, stride: int = 1, separable: bool) -> Any:
    """Convolution, BatchNormalization, ReLU; no bias, since BatchNormalization would take it out again."""
    options: dict[str, Any] = {"padding": "same", "use_bias": False}
    if separable:
        x = keras.layers.DepthwiseConv2D(_KERNEL, stride, name=f"{name}_depthwise_conv", **options)(x)
        x = _bn_relu(x, f"{name}_depthwise")
        x = keras.layers.Conv2D(width, 1, name=f"{name}_conv", **options)(x)
    else:
        x = keras.layers.Conv2D(width, _KERNEL, stride, name=f"{name}_conv", **options)(x)
    return _bn_relu(x, name)


def _bn_relu(x: Any, name: str) -> Any:
    x = keras.layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
