"""The arithmetic of one layer against Keras's own, over more settings than the table of backbones has."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report.architecture import describe_model
from pipelines.report.formulas import output_side, reach, same_padding

layers = keras.layers
SIDES, SMALL = st.integers(9, 20), st.integers(1, 4)
PADDINGS = st.sampled_from(["same", "valid"])


def test_the_formula_of_shapes() -> None:
    assert output_side(32, 3, 1, padding=2) == 32
    assert output_side(32, 3, 2, padding=2) == 16
    assert output_side(224, 7, 2, padding=6) == 112
    assert output_side(32, 2, 2, padding=0) == 16
    assert reach(3, 1) == 3
    assert reach(3, 4) == 9


@given(side=st.integers(1, 300), kernel=st.integers(1, 9), stride=st.integers(1, 9))
def test_same_padding_gives_the_sides_that_tensorflow_promises(side: int, kernel: int, stride: int) -> None:
    padding = same_padding(side, kernel, stride)
    assert padding >= 0
    if padding:  # a kernel that is smaller than the step leaves px out in place of padding
        assert output_side(side, kernel, stride, padding=padding) == -(-side // stride)


def check(layer: keras.Layer, height: int, width: int, channels: int) -> None:
    image = keras.Input((height, width, channels))
    model = keras.Model(image, layer(image))
    (_, row) = describe_model(model).layers
    assert row.shape == tuple(layer.output.shape[1:])
    assert row.parameters == layer.count_params()


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(SIDES, SIDES),
    kernel=st.tuples(SMALL, SMALL),
    stride=SMALL,
    dilation=st.integers(1, 3),
    padding=PADDINGS,
    bias=st.booleans(),
    groups=st.sampled_from([1, 2]),
)
def test_convolutions(sides: Any, kernel: Any, stride: int, dilation: int, padding: str, bias: bool, groups: int) -> None:
    if stride > 1:
        dilation = 1  # Keras takes one of them
    options: dict[str, Any] = {"strides": stride, "dilation_rate": dilation, "padding": padding, "use_bias": bias}
    check(layers.Conv2D(6, kernel, groups=groups, **options), *sides, 4)
    square: dict[str, Any] = {"kernel_size": kernel[0], **options}
    check(layers.DepthwiseConv2D(**square, depth_multiplier=groups), *sides, 4)
    check(layers.SeparableConv2D(5, **square, depth_multiplier=groups), *sides, 4)


@settings(max_examples=30, deadline=None)
@given(sides=st.tuples(SIDES, SIDES), pool=st.tuples(SMALL, SMALL), stride=SMALL, padding=PADDINGS)
def test_pooling(sides: Any, pool: Any, stride: int, padding: str) -> None:
    for kind in (layers.MaxPooling2D, layers.AveragePooling2D):
        check(kind(pool, stride, padding=padding), *sides, 3)


@pytest.mark.parametrize(
    "layer",
    [
        layers.GlobalMaxPooling2D(),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Dense(5, use_bias=False),
        layers.Dense(5),
        layers.ZeroPadding2D(((0, 1), (2, 3))),
        layers.BatchNormalization(scale=False),
        layers.LayerNormalization(center=False),
        layers.Normalization(),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.Reshape((-1, 4)),
        layers.Cropping2D(2),  # without a formula: Keras is asked
    ],
    ids=lambda layer: layer.name,
)
def test_other_layers(layer: keras.Layer) -> None:
    check(layer, 9, 8, 6)
