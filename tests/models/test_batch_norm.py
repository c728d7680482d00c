"""Keras's `fit` moves no BatchNormalization of ours, and does in the usual recipe."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pipelines.config import BackboneName
from pipelines.models.assemble import backbone_of, set_trainable_top
from tests.models.test_assemble import NUM_CLASSES, assert_equal, batch_for, batch_norm_values, build, perturb, train_step

# NumPy 2 asks `__array__` of TensorFlow's tensors for a `copy` argument that TensorFlow 2.21 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.mark.parametrize(
    ("name", "eagerly"),
    [("EfficientNetLite0", False), ("MobileNetV2", True), ("ResNet50V2", True)],  # a graph takes 5 s to trace
)
def test_batch_norm_does_not_move_under_fit(name: BackboneName, eagerly: bool) -> None:
    model = build(name)
    perturb(model)
    before = batch_norm_values(model)
    fit_one_epoch(model, eagerly=eagerly)
    set_trainable_top(model, layers=20)
    kernel = backbone_of(model).trainable_variables[-1].numpy()
    fit_one_epoch(model, eagerly=eagerly)
    assert_equal(batch_norm_values(model), before)
    assert not np.array_equal(kernel, backbone_of(model).trainable_variables[-1])


def fit_one_epoch(model: keras.Model, *, eagerly: bool) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=eagerly)
    model.fit(*batch_for(model), batch_size=2, epochs=1, verbose=0)


def test_the_check_above_can_fail() -> None:
    """The control: the usual recipe moves the statistics, although it calls the backbone with `training=False`."""
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(image, training=False))
    model = keras.Model(image, keras.layers.Dense(NUM_CLASSES)(pooled))
    backbone.trainable = False
    perturb(model)
    before = batch_norm_values(model)
    train_step(model)
    assert_equal(batch_norm_values(model), before)
    backbone.trainable = True  # phase 2 of the recipe
    train_step(model)
    moved = [not np.array_equal(one, other) for one, other in zip(before, batch_norm_values(model), strict=True)]
    assert sum(moved) > len(moved) / 2
