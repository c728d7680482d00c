"""Faster layers learn what Keras's own learn, by the same weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pipelines.config import BackboneName, BlocksConfig, ModelConfig, Recipe
from pipelines.models.assemble import build_classifier, set_trainable_top
from pipelines.models.fast_layers import with_fast_layers
from pipelines.slices import training_slice
from pipelines.training.phases import build_learner
from tests.models.test_assemble import perturb

Array = np.ndarray[Any, Any]


def images(count: int = 6) -> Array:
    return np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype(np.float32)


def names_of(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model._flatten_layers(include_self=False)]


def train(model: keras.Model, network: keras.Model, *, steps: int = 3) -> list[Array]:
    """Trains a network; returns its losses, and the weights of the model that shares them."""
    labels = np.array([0, 1, 2, 0, 1, 2])
    losses = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, network(images(), training=True))
        weights = [weight.value for weight in network.trainable_weights]
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.01 * gradient)
        losses.append(np.asarray(loss))
    return [*losses, *model.get_weights()]


@pytest.mark.parametrize("name", ["SmallCNN", "SmallSeparableCNN"])
def test_a_network_learns_the_same_and_moves_the_same_statistics(name: BackboneName) -> None:
    config = ModelConfig(backbone=name, weights="none", dropout=0.0, blocks=BlocksConfig(dropout=0.0))
    model = build_classifier(config, image_size=32, num_classes=3, seed=1)
    set_trainable_top(model, layers="all")
    perturb(model)
    fast, before = with_fast_layers(model), model.get_weights()
    assert [id(weight) for weight in fast.trainable_weights] == [id(weight) for weight in model.trainable_weights]
    assert names_of(fast).count("_FusedNormalization") == names_of(model).count("BatchNormalization") > 0
    np.testing.assert_allclose(fast(images(), training=False), model(images(), training=False), rtol=1e-4, atol=1e-5)
    expected = train(model, model)
    model.set_weights(before)
    received = train(model, fast)
    assert any(not np.array_equal(one, other) for one, other in zip(received[3:], before, strict=True))
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_the_phase_of_a_from_scratch_model_learns_by_them() -> None:
    recipe = Recipe.model_validate({"model": {"backbone": "SmallSeparableCNN"}})
    model = build_classifier(recipe.model, image_size=32, num_classes=3, seed=1)
    set_trainable_top(model, layers="all")
    used = names_of(build_learner(model, training_slice(recipe), None, 0).suffix)
    assert {"_FusedNormalization", "_PointwiseProduct"} <= set(used)
    assert "BatchNormalization" in names_of(model)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_normalization_keeps_its_type_and_float32_statistics(policy: str) -> None:
    x = keras.Input((4, 4, 2))
    normalization = layers.BatchNormalization(dtype=policy)
    model = keras.Model(x, normalization(x))
    values = np.random.default_rng(0).normal(3, 2, (8, 4, 4, 2)).astype(np.float32)
    outputs = with_fast_layers(model)(values, training=True)
    assert outputs.dtype == tf.as_dtype(keras.DTypePolicy(policy).compute_dtype)
    np.testing.assert_allclose(np.asarray(tf.cast(outputs, tf.float32)).mean((0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(normalization.moving_mean, 0.01 * values.mean((0, 1, 2)), rtol=0.01)
    np.testing.assert_allclose(normalization.moving_variance, 0.99 + 0.01 * values.var((0, 1, 2)), rtol=0.01)


def test_what_does_not_learn_or_is_not_usual_stays_keras_s_own() -> None:
    x = y = keras.Input((4, 4, 2))
    for number, options in enumerate([{"trainable": False}, {"scale": False}, {"center": False}, {"axis": 1}]):
        y = layers.BatchNormalization(name=f"norm{number}", **options)(y)
    y = layers.Conv2D(2, 1, strides=2, name="strided")(y)
    y = layers.BatchNormalization(name="flat")(layers.Flatten()(layers.Conv2D(2, 1, groups=2, name="grouped")(y)))
    model = keras.Model(x, y)
    assert names_of(with_fast_layers(model)) == names_of(model)


def test_a_batch_of_one_pixel_leaves_numbers() -> None:
    x = keras.Input((1, 1, 2))
    normalization = layers.BatchNormalization()
    fast = with_fast_layers(keras.Model(x, normalization(x)))
    np.testing.assert_allclose(fast(np.ones((1, 1, 1, 2)), training=True), 0, atol=1e-6)
    np.testing.assert_allclose(normalization.moving_variance, 0.99, rtol=1e-6)
