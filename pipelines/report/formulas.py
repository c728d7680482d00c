"""What one layer costs, by arithmetic on its settings: output shape, parameters, multiply-adds, and how far it looks.

A kind of layer is a row of `FORMULAS`. Nothing is asked of Keras but a layer's settings, so that its own counts can be the
test. Shapes are (height, width, channels) in px, or (features,), without the batch. Imports no Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a layer makes and takes, for one image.

    Attributes:
        shape: of its output.
        parameters: trainable or not, the statistics of normalization included.
        multiply_adds: one product and its sum each; those of convolutions and dense layers, as published counts have it
            (normalization is folded into them at inference, and activation, pooling and biases are left out).
        kernel: px of its input that one px of its output sees along a side, with the gaps of dilation.
        stride: px of its input between two px of its output.
        sees_all: each output sees the whole input.
    """

    shape: Shape
    parameters: int = 0
    multiply_adds: int = 0
    kernel: int = 1
    stride: int = 1
    sees_all: bool = False


Formula = Callable[[Any, Sequence[Shape]], Cost]


def output_side(side: int, kernel: int, stride: int, *, padding: int) -> int:
    """floor((W - K + P) / S) + 1, P being the sum of both sides (2P where they are equal)."""
    return (side - kernel + padding) // stride + 1


def same_padding(side: int, kernel: int, stride: int) -> int:
    """What TensorFlow's 'same' adds on both sides together, so that ceil(W / S) comes out; an odd px goes to the far side."""
    return max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)


def reach(kernel: int, dilation: int) -> int:
    """Px that a kernel spans: (K - 1) D + 1."""
    return (kernel - 1) * dilation + 1


def _slide(layer: Any, shape: Shape, window: Sequence[int], channels: int, dilation: Sequence[int] = (1, 1)) -> Cost:
    """The output shape of a window that slides over an image, and how far it looks; it costs nothing yet."""
    spans = [reach(kernel, gap) for kernel, gap in zip(window, dilation, strict=True)]
    sides = []
    for side, span, stride in zip(shape[:2], spans, layer.strides, strict=True):
        padding = same_padding(side, span, stride) if layer.padding == "same" else 0
        sides.append(output_side(side, span, stride, padding=padding))
    return Cost((*sides, channels), kernel=max(spans), stride=max(layer.strides))


def _convolve(layer: Any, shape: Shape, products: int, channels: int) -> Cost:
    """A convolution with so many products per px of its output."""
    slid = _slide(layer, shape, layer.kernel_size, channels, layer.dilation_rate)
    parameters = products + channels * layer.use_bias
    return Cost(slid.shape, parameters, products * math.prod(slid.shape[:2]), slid.kernel, slid.stride)


def _conv(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """K * K * Cin * Cout + Cout."""
    products = math.prod(layer.kernel_size) * shapes[0][-1] // layer.groups * layer.filters
    return _convolve(layer, shapes[0], products, layer.filters)


def _depthwise(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """K * K * Cout + Cout: every output channel sees one input channel."""
    channels = shapes[0][-1] * layer.depth_multiplier
    return _convolve(layer, shapes[0], math.prod(layer.kernel_size) * channels, channels)


def _separable(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """K * K * Cin + Cin * Cout + Cout: a depthwise convolution, then a 1x1 one."""
    middle = shapes[0][-1] * layer.depth_multiplier
    return _convolve(layer, shapes[0], math.prod(layer.kernel_size) * middle + middle * layer.filters, layer.filters)


def _dense(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """Cin * Cout + Cout, at each px where the input is an image."""
    *positions, features = shapes[0]
    products = features * layer.units
    shape = (*positions, layer.units)
    return Cost(shape, products + layer.units * layer.use_bias, products * math.prod(positions))


def _pool(layer: Any, shapes: Sequence[Shape]) -> Cost:
    return _slide(layer, shapes[0], layer.pool_size, shapes[0][-1])


def _pool_all(layer: Any, shapes: Sequence[Shape]) -> Cost:
    channels = shapes[0][-1]
    return Cost((1, 1, channels) if layer.keepdims else (channels,), sees_all=True)


def _pad(layer: Any, shapes: Sequence[Shape]) -> Cost:
    height, width, channels = shapes[0]
    return Cost((height + sum(layer.padding[0]), width + sum(layer.padding[1]), channels))


def _batch_norm(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """Mean and variance, and gamma and beta where it has them, per channel."""
    return Cost(shapes[0], shapes[0][-1] * (2 + layer.scale + layer.center))


def _layer_norm(layer: Any, shapes: Sequence[Shape]) -> Cost:
    return Cost(shapes[0], shapes[0][-1] * (layer.scale + layer.center))


def _normalization(layer: Any, shapes: Sequence[Shape]) -> Cost:
    """Mean and variance per channel and the number of images behind them, unless they are constants."""
    return Cost(shapes[0], 2 * shapes[0][-1] + 1 if layer.input_mean is None else 0)


def _layer_scale(layer: Any, shapes: Sequence[Shape]) -> Cost:  # noqa: ARG001 (one factor per channel is all there is)
    return Cost(shapes[0], shapes[0][-1])


def _keep(layer: Any, shapes: Sequence[Shape]) -> Cost:  # noqa: ARG001 (whatever its settings are)
    return Cost(shapes[0])


def _merge(layer: Any, shapes: Sequence[Shape]) -> Cost:  # noqa: ARG001
    """Element by element, with sides of 1 stretched."""
    return Cost(tuple(max(sides) for sides in zip(*shapes, strict=True)))


def _concatenate(layer: Any, shapes: Sequence[Shape]) -> Cost:  # noqa: ARG001 (along the channels, as in all networks here)
    return Cost((*shapes[0][:-1], sum(shape[-1] for shape in shapes)))


def _reshape(layer: Any, shapes: Sequence[Shape]) -> Cost:
    known = math.prod(side for side in layer.target_shape if side != -1)
    return Cost(tuple(math.prod(shapes[0]) // known if side == -1 else side for side in layer.target_shape))


FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "Conv2D": _conv,
        "DepthwiseConv2D": _depthwise,
        "SeparableConv2D": _separable,
        "Dense": _dense,
        "MaxPooling2D": _pool,
        "AveragePooling2D": _pool,
        "GlobalAveragePooling2D": _pool_all,
        "GlobalMaxPooling2D": _pool_all,
        "ZeroPadding2D": _pad,
        "BatchNormalization": _batch_norm,
        "LayerNormalization": _layer_norm,
        "Normalization": _normalization,
        "LayerScale": _layer_scale,
        "Concatenate": _concatenate,
        "Reshape": _reshape,
        "Add": _merge,
        "Multiply": _merge,
        **dict.fromkeys(("Activation", "Dropout", "ReLU", "Rescaling", "Softmax", "Flip"), _keep),
    }
)
