"""A frozen network made cheaper to run: each BatchNormalization becomes part of the convolution before it.

With statistics that stand still the layer is a product and a sum for each channel. The product goes into the convolution's
kernel and the sum becomes its bias, which TensorFlow adds, and clips by a ReLU, while the result is still in the processor's
cache: images pass EfficientNet-Lite0 in two thirds of the time (docs/decisions/0013-the-freeze-line.md).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.models.assemble import walk_layers


def fold_normalization(network: keras.Model) -> keras.Model:
    """The same function as a network in inference, with the weights that it has now, which do not follow later changes.

    Layers in other types than float32, and convolutions whose result is used elsewhere too, stay as they are.

    Args:
        network: a functional model, with models inside or without; it is not changed.

    Returns:
        A model of the same inputs and outputs, float32, equal within rounding: 1e-5 of the largest value.
    """
    pairs: dict[int, keras.layers.BatchNormalization] = {}
    for model in walk_layers(network):
        if hasattr(model, "operations"):  # a functional model, and not one of Keras's Sequential
            pairs |= _find_pairs(model)
    folded = {id(normalization) for normalization in pairs.values()}

    def exchange(layer: Any) -> Any:
        if id(layer) in pairs:
            return _FoldedConvolution(layer, pairs[id(layer)])
        return _Nothing(name=layer.name) if id(layer) in folded else layer

    if not pairs:
        return network
    return keras.models.clone_model(network, clone_function=exchange, recursive=True)


def _find_pairs(model: keras.Model) -> dict[int, keras.layers.BatchNormalization]:
    """BatchNormalization layers by the id of the convolution that they alone follow."""
    users: dict[int, list[Any]] = {}
    for operation in model.operations:
        for tensor in [] if isinstance(operation, keras.layers.InputLayer) else keras.tree.flatten(operation.input):
            users.setdefault(id(tensor), []).append(operation)
    outputs = {id(tensor) for tensor in model.outputs}
    pairs = {}
    for operation in model.operations:
        following = users.get(id(operation.output), [])
        alone = len(following) == 1 and id(operation.output) not in outputs
        if alone and _is_plain_convolution(operation) and _is_plain_normalization(following[0]):
            pairs[id(operation)] = following[0]
    return pairs


def _is_plain_normalization(operation: Any) -> bool:
    plain = type(operation) is keras.layers.BatchNormalization
    return plain and operation.axis in (-1, 3) and operation.compute_dtype == "float32"


def _is_plain_convolution(operation: Any) -> bool:
    return (
        type(operation) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and operation.data_format == "channels_last"
        and operation.compute_dtype == "float32"
        and operation.activation is keras.activations.linear
    )


class _FoldedConvolution(keras.layers.Layer):
    """A convolution and the normalization behind it, as a convolution with a bias; its numbers are constants of the graph."""

    def __init__(self, convolution: Any, normalization: keras.layers.BatchNormalization) -> None:
        super().__init__(name=convolution.name, dtype="float32")
        # What is asked of the convolution, and not the layer itself, whose weights Keras would count as this model's.
        self._spec_of = convolution.compute_output_spec
        self._options = {name: getattr(convolution, name) for name in ("strides", "padding", "dilation_rate")}
        depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        self._convolve = keras.ops.depthwise_conv if depthwise else keras.ops.conv
        scale, shift = _scale_and_shift(normalization)
        kernel = np.asarray(convolution.kernel, np.float64)
        # A depthwise kernel is [height, width, channels, multiplier], and its results are ordered so.
        self._kernel = (kernel * (scale.reshape(kernel.shape[2:]) if depthwise else scale)).astype(np.float32)
        bias = np.asarray(convolution.bias, np.float64) if convolution.use_bias else 0.0
        self._bias = (bias * scale + shift).astype(np.float32)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """As both layers, in inference."""
        return tf.nn.bias_add(self._convolve(inputs, self._kernel, data_format="channels_last", **self._options), self._bias)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Shape and type of the result."""
        return self._spec_of(inputs)


def _scale_and_shift(layer: keras.layers.BatchNormalization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the layer multiplies each channel by in inference, and what it adds, float64 [channels]."""
    mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, np.float64)
    shift = -mean * scale
    if layer.center:
        shift = shift + np.asarray(layer.beta, np.float64)
    return scale, shift


class _Nothing(keras.layers.Layer):
    """Gives back what it takes, in place of a layer that takes a mask."""

    def call(self, inputs: Any, mask: Any = None) -> Any:  # noqa: ARG002
        """The inputs."""
        return inputs

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:  # noqa: ARG002
        """Shape and type of the inputs; left to Keras, each would cost a trace."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)
