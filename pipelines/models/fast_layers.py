"""Layers that learn, computed in a faster way than Keras does it, by the same weights."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def with_fast_layers(network: keras.Model) -> keras.Model:
    """The same network over the same layers, but for 1x1 convolutions, and for BatchNormalization that learns.

    It is for training: saving it and loading it would take custom objects.

    Args:
        network: whose layers are set trainable as they will be in training; other networks inside are gone through, too.
    """

    def exchange(operation: Any) -> Any:
        if _is_pointwise(operation):
            return _PointwiseProduct(operation)
        if _normalizes_channels(operation) and operation.trainable:
            return _FusedNormalization(operation)
        return operation

    return keras.models.clone_model(network, clone_function=exchange, recursive=True)


class _PointwiseProduct(keras.layers.Layer):
    """A 1x1 convolution as a matrix product, which it is; with the weights of the layer that it stands for.

    TensorFlow's gradient of a convolution by its input takes five times as long as its forward pass on a CPU, a product's
    about as long: a step of the top of EfficientNet-Lite0 is a third cheaper (docs/decisions/0013-the-freeze-line.md).
    """

    def __init__(self, convolution: keras.layers.Conv2D) -> None:
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.built = True

    def call(self, inputs: Any) -> Any:
        """As the convolution's."""
        layer = self.convolution
        # Not `kernel[0, 0]`, whose gradient fills a kernel of zeros and copies into it.
        kernel = keras.ops.reshape(layer.kernel, layer.kernel.shape[2:])
        outputs = keras.ops.matmul(inputs, keras.ops.cast(kernel, inputs.dtype))
        if layer.use_bias:
            outputs = outputs + keras.ops.cast(layer.bias, inputs.dtype)
        return layer.activation(outputs)


class _FusedNormalization(keras.layers.Layer):
    """BatchNormalization whose training step is TensorFlow's one operation, with the weights of the layer that it stands for.

    Keras makes it of some fifteen elementwise operations forth and back, a fifth of a step of the small CNN on a CPU
    (docs/decisions/0015-from-scratch-and-describe.md).
    """

    def __init__(self, normalization: keras.layers.BatchNormalization) -> None:
        super().__init__(name=normalization.name, dtype=normalization.dtype_policy)
        self.normalization = normalization
        self.built = True

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        """As BatchNormalization's, moving statistics included."""
        layer = self.normalization
        if not training or mask is not None:
            return layer(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(layer.gamma),
            offset=tf.convert_to_tensor(layer.beta),
            mean=[],
            variance=[],
            epsilon=layer.epsilon,
        )
        seen = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        _move(layer.moving_mean, mean, layer.momentum)
        # TensorFlow's is an estimate for all images there are; Keras keeps that of the batch itself.
        _move(layer.moving_variance, variance * ((seen - 1) / seen), layer.momentum)
        return outputs


def _move(average: Any, value: Any, momentum: float) -> None:
    average.assign(average * momentum + value * (1 - momentum))


def _is_pointwise(operation: Any) -> bool:
    plain = type(operation) is keras.layers.Conv2D and operation.data_format == "channels_last"
    return plain and operation.kernel_size == operation.strides == (1, 1) and operation.groups == 1


def _normalizes_channels(operation: Any) -> bool:
    plain = type(operation) is keras.layers.BatchNormalization and operation.center and operation.scale
    return plain and not operation.synchronized and len(operation.output.shape) == 4 and operation.axis in (-1, 3)
