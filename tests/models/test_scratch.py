"""The small networks: their blocks are those of the recipe, and each kind of pooling does what it is called."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pipelines.config import BlocksConfig
from pipelines.models.scratch import build_scratch


def kernel_shapes(network: keras.Model, kind: type[keras.Layer] = keras.layers.Conv2D) -> list[tuple[int, ...]]:
    return [tuple(layer.kernel.shape) for layer in network.layers if isinstance(layer, kind)]


def test_the_default_is_the_usual_cnn_for_cifar_10() -> None:
    network = build_scratch(BlocksConfig(), image_size=32, separable=False)
    expected = [(3, 3, 3, 32), (3, 3, 32, 32), (3, 3, 32, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    assert kernel_shapes(network) == expected
    assert network.output_shape == (None, 8, 8, 128)
    kinds = [type(layer).__name__ for layer in network.layers[1:]]
    block = ["Conv2D", "BatchNormalization", "ReLU"]
    pool = ["MaxPooling2D", "Dropout"]
    assert kinds == block * 2 + pool + block * 2 + pool + block
    assert [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25]


def test_the_separable_twin_has_the_same_shapes_in_two_steps() -> None:
    plain, twin = (build_scratch(BlocksConfig(), image_size=32, separable=separable) for separable in (False, True))
    assert twin.output_shape == plain.output_shape
    assert kernel_shapes(twin) == [(3, 3, 3, 32), *((1, 1, *shape[2:]) for shape in kernel_shapes(plain)[1:])]
    depthwise = kernel_shapes(twin, keras.layers.DepthwiseConv2D)
    assert depthwise == [(3, 3, shape[2], 1) for shape in kernel_shapes(plain)[1:]]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
def test_widths_depths_and_pooling(pooling: Any, separable: bool) -> None:
    blocks = BlocksConfig(widths=(4, 6, 5, 3), depths=(1, 3, 2, 1), pooling=pooling, dropout=0.5)
    network = build_scratch(blocks, image_size=40, separable=separable)
    assert network.output_shape == (None, 5, 5, 3)
    strided = [4, 6, 5] if pooling == "stride" else [0, 0, 0]
    widths = [4, strided[0], 6, 6, 6, strided[1], 5, 5, strided[2], 3]
    assert [shape[-1] for shape in kernel_shapes(network)] == [width for width in widths if width]
    assert {layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)} == {0.5}
    kinds = {type(layer).__name__ for layer in network.layers if "Pooling" in type(layer).__name__}
    assert kinds == {"max": {"MaxPooling2D"}, "average": {"AveragePooling2D"}, "stride": set()}[pooling]
    features = np.asarray(network(np.random.default_rng(0).uniform(-1, 1, (2, 40, 40, 3)).astype(np.float32)))
    assert features.min() == 0
    assert np.ptp(features) > 0
