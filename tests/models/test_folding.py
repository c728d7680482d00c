"""A network with its normalization folded is the same function, for every backbone of the table."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pipelines.models.folding import fold_normalization


def filled(model: keras.Model) -> keras.Model:
    """The model with statistics, scales and shifts that are not the initial ones."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return model


def answers(model: keras.Model, images: Any) -> Any:
    return np.asarray(model(images, training=False))


def check_same(model: keras.Model, *, left: int) -> None:
    """Both give the same, and `left` layers of the folded one still normalize."""
    images = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    expected, before = answers(model, images), model.get_weights()
    folded = fold_normalization(model)
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers) == left
    if not left:
        assert not folded.weights  # who saves it writes nothing twice
    received = answers(folded, images)
    assert np.abs(received - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(answers(model, images), expected)
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "layer",
    [
        {"kind": "Conv2D", "filters": 6, "strides": 2},
        {"kind": "Conv2D", "filters": 6, "groups": 3},
        {"kind": "Conv2D", "filters": 6, "dilation_rate": 2},
        {"kind": "DepthwiseConv2D"},
        {"kind": "DepthwiseConv2D", "depth_multiplier": 2, "strides": 2},
    ],
    ids=str,
)
def test_each_kind_of_convolution(layer: dict[str, Any], padding: str, use_bias: bool) -> None:
    options = {**layer}
    convolution = getattr(keras.layers, options.pop("kind"))
    image = keras.Input((9, 9, 3))
    x = convolution(
        kernel_size=3, padding=padding, use_bias=use_bias, bias_initializer=keras.initializers.RandomNormal(seed=3), **options
    )(image)
    x = keras.layers.BatchNormalization()(x)
    check_same(filled(keras.Model(image, keras.layers.ReLU(6)(x))), left=0)


def test_layers_without_scale_or_shift() -> None:
    image = keras.Input((5, 5, 3))
    x = keras.layers.BatchNormalization(scale=False)(keras.layers.Conv2D(4, 1)(image))
    x = keras.layers.BatchNormalization(center=False)(keras.layers.Conv2D(4, 1)(x))
    check_same(filled(keras.Model(image, x)), left=0)


def test_what_can_not_be_folded_stays() -> None:
    image = keras.Input((5, 5, 4))
    used_twice = keras.layers.Conv2D(4, 1)(image)
    x = keras.layers.Add()([keras.layers.BatchNormalization()(used_twice), used_twice])
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1, activation="relu")(x))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 1, dtype="bfloat16")(x))
    check_same(filled(keras.Model(image, keras.layers.BatchNormalization()(x))), left=4)


def test_a_convolution_that_is_an_output_stays_one() -> None:
    image = keras.Input((5, 5, 3))
    made = keras.layers.Conv2D(4, 1)(image)
    model = keras.Model(image, [made, keras.layers.BatchNormalization()(made)])
    assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in fold_normalization(model).layers)
