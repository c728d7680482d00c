"""How much work a network is, counted from its graph alone."""

from __future__ import annotations

import math

import keras

from pipelines.models.assemble import walk_layers


def count_multiply_adds(model: keras.Model) -> int:
    """Of kernels, for one image: a kernel is applied as a whole at each place of its layer's output.

    So it is for convolutions of every kind and for dense layers, each called once, as in all backbones. What has a single axis
    of weights (BatchNorm, biases) is left out; `imagemill describe` counts these too, layer by layer.
    """
    total = 0
    for layer in walk_layers(model):
        if isinstance(layer, keras.Model):
            continue
        kernels = sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
        if kernels:
            total += kernels * math.prod(layer.output.shape[1:-1])
    return total
