"""Assembled classifiers: what learns in which phase, for every backbone of the table, and that models survive a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import BACKBONE_NAMES, BackboneName, ModelConfig
from pipelines.defaults import FROM_SCRATCH
from pipelines.errors import InputError
from pipelines.models.assemble import (
    backbone_of,
    build_classifier,
    set_trainable_head,
    set_trainable_top,
    walk_layers,
    with_probabilities,
)
from pipelines.models.backbones import BACKBONES, preprocess
from pipelines.models.lite0 import build_lite0

# NumPy 2 asks `__array__` of TensorFlow's tensors for a `copy` argument that TensorFlow 2.21 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

NUM_CLASSES = 3
ALL_LAYERS = 10_000
# Larger siblings of EfficientNetB0 and V2B0 have no layer that these lack; a round trip of all would take another 30 s.
SIBLINGS = [name for name in BACKBONE_NAMES if re.fullmatch("EfficientNet(V2)?B[1-4]", name)]
ONE_OF_EACH = [name for name in BACKBONE_NAMES if name not in SIBLINGS]
Array = np.ndarray[Any, Any]


def build(name: BackboneName, *, seed: int = 1, dropout: float = 0.3, weights: str = "none") -> keras.Model:
    config = ModelConfig(backbone=name, weights=weights, dropout=dropout)
    return build_classifier(config, image_size=BACKBONES[name].min_image_size, num_classes=NUM_CLASSES, seed=seed)


def batch_for(model: keras.Model) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, *model.input_shape[1:])).astype(np.float32), np.array([0, 1, 2, 1])


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """All of them at any depth; by Keras's own walk, so that ours is not its own judge."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def perturb(model: keras.Model) -> None:
    """Gives every BatchNormalization weights that differ from their initial ones."""
    rng = np.random.default_rng(1)
    for layer in batch_norms(model):
        layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])


def batch_norm_values(model: keras.Model) -> list[Array]:
    return [value for layer in batch_norms(model) for value in layer.get_weights()]


def train_step(model: keras.Model) -> None:
    """One eager step of gradient descent with the call that `fit` makes; the last variables, to spare time."""
    images, labels = batch_for(model)
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, model(images, training=True))
    assert np.isfinite(loss)
    variables = model.trainable_variables[-20:]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(1e-3 * gradient)


def assert_equal(left: list[Array], right: list[Array]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


# In this order pytest runs all tests of one backbone in a row, those over ONE_OF_EACH too, and builds it once.
@pytest.fixture(scope="module", params=[*ONE_OF_EACH, *SIBLINGS])
def classifier(request: pytest.FixtureRequest) -> Iterator[keras.Model]:
    """A classifier on each backbone in turn, its BatchNormalization away from initial values. Tests set what is trainable."""
    model = build(request.param)
    perturb(model)
    yield model
    keras.backend.clear_session()


def test_batch_norm_never_moves(classifier: keras.Model) -> None:
    """The contract that the usual recipe breaks; `test_the_check_above_can_fail` is its control."""
    if not batch_norms(classifier):
        pytest.skip("no BatchNormalization in it")  # ConvNeXt, whose eager step would take 6 s
    if backbone_of(classifier).name in FROM_SCRATCH:
        pytest.skip("learns whole; see the next test")
    before, frozen = batch_norm_values(classifier), backbone_of(classifier).get_weights()
    head = classifier.get_layer("logits").get_weights()
    set_trainable_head(classifier)
    train_step(classifier)
    assert_equal(backbone_of(classifier).get_weights(), frozen)
    assert not np.array_equal(head[0], classifier.get_layer("logits").get_weights()[0])
    set_trainable_top(classifier, layers=ALL_LAYERS)  # the hardest case
    train_step(classifier)
    assert_equal(batch_norm_values(classifier), before)
    after = backbone_of(classifier).get_weights()
    assert any(not np.array_equal(one, other) for one, other in zip(frozen, after, strict=True))


@pytest.mark.parametrize("classifier", FROM_SCRATCH, indirect=True)
def test_batch_norm_of_a_from_scratch_model_learns(classifier: keras.Model) -> None:
    before = [layer.get_weights() for layer in batch_norms(classifier)]
    set_trainable_top(classifier, layers="all")
    train_step(classifier)
    for layer, values in zip(batch_norms(classifier), before, strict=True):
        mean, variance = layer.get_weights()[2:]
        assert not np.array_equal(mean, values[2])
        assert not np.array_equal(variance, values[3])
    assert all(layer.trainable for layer in walk_layers(classifier))


def test_only_the_head_learns_in_phase_1(classifier: keras.Model) -> None:
    set_trainable_top(classifier, layers=ALL_LAYERS)
    set_trainable_head(classifier)
    assert [weight.path for weight in classifier.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_all_but_batch_norm_learns_in_phase_2(classifier: keras.Model) -> None:
    expected = {id(weight) for layer in walk_layers(classifier) for weight in layer._trainable_variables}
    if backbone_of(classifier).name not in FROM_SCRATCH:
        expected -= {id(weight) for layer in batch_norms(classifier) for weight in layer.weights}
    assert len(expected) > 2
    for layers in (ALL_LAYERS, "all"):
        set_trainable_head(classifier)
        set_trainable_top(classifier, layers=layers)
        assert {id(weight) for weight in classifier.trainable_variables} == expected


def test_backbone_is_what_its_row_promises(classifier: keras.Model) -> None:
    backbone = backbone_of(classifier)
    row = BACKBONES[backbone.name]
    assert backbone.input_shape == (None, row.min_image_size, row.min_image_size, 3)
    assert backbone.input.dtype == backbone.output.dtype == "float32"
    assert len(backbone.output_shape) == 4  # no pooling
    # Where the row says "none", the network itself must begin with the scaling of pixels, and nowhere else.
    inside = isinstance(backbone.layers[1], (keras.layers.Rescaling, keras.layers.Normalization))
    assert inside == (row.preprocessing == "none")
    layers = {layer.name: layer for layer in classifier.layers}
    assert ("preprocess" in layers) == (row.preprocessing != "none")
    if "preprocess" in layers:
        images, _ = batch_for(classifier)
        fed = keras.Model(classifier.input, layers["preprocess"].output)(images)
        np.testing.assert_array_equal(fed, preprocess(tf.constant(images), row.preprocessing))


def test_table_of_backbones_holds_what_the_walk_finds(classifier: keras.Model) -> None:
    """A backbone with layers hidden in other layers than models would need another walk."""
    walked, flattened = (
        {layer.name for layer in layers if layer.weights and not isinstance(layer, keras.Model)}
        for layers in (walk_layers(classifier), classifier._flatten_layers())
    )
    assert walked == flattened


@pytest.mark.parametrize("classifier", ONE_OF_EACH, indirect=True)
def test_survives_a_file_without_custom_objects(classifier: keras.Model, tmp_path: Path) -> None:
    set_trainable_top(classifier, layers=30)
    images, _ = batch_for(classifier)
    logits = np.asarray(classifier(images))
    assert logits.shape == (4, NUM_CLASSES)
    assert logits.dtype == np.float32
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), logits)
    assert_equal(loaded.get_weights(), classifier.get_weights())
    assert backbone_of(loaded).name == backbone_of(classifier).name
    for one, other in zip(walk_layers(loaded), walk_layers(classifier), strict=True):
        assert one.name == other.name
        assert len(one.trainable_weights) == len(other.trainable_weights)


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    return build("MobileNetV2")


def trainable_names(model: keras.Model) -> list[str]:
    return [layer.name for layer in backbone_of(model).layers if layer.trainable]


def test_layers_are_counted_like_the_usual_slice(mobilenet: keras.Model) -> None:
    last = backbone_of(mobilenet).layers[-20:]
    set_trainable_top(mobilenet, layers=20)
    expected = [layer.name for layer in last if not isinstance(layer, keras.layers.BatchNormalization)]
    assert trainable_names(mobilenet) == expected
    assert len(expected) < 20


def test_phases_may_follow_each_other_in_any_order(mobilenet: keras.Model) -> None:
    """`model.trainable = True` alone would leave layers frozen that an earlier phase froze."""
    found = []
    for layers in (20, 5, 40, 20):
        set_trainable_top(mobilenet, layers=layers)
        found.append(trainable_names(mobilenet))
        set_trainable_head(mobilenet)
        assert len(mobilenet.trainable_variables) == 2
        set_trainable_top(mobilenet, layers=layers)
        assert trainable_names(mobilenet) == found[-1]
    assert found[0] == found[3]
    assert len(found[1]) < len(found[0]) < len(found[2])
    set_trainable_top(mobilenet, layers=5)
    set_trainable_top(mobilenet, layers=40)
    assert trainable_names(mobilenet) == found[2]


def test_equal_seeds_give_equal_models(mobilenet: keras.Model) -> None:
    same, other = build("MobileNetV2"), build("MobileNetV2", seed=2)
    assert_equal(mobilenet.get_weights(), same.get_weights())
    for kernel in (0, -2):  # of the first convolution and of the head
        assert not np.array_equal(mobilenet.get_weights()[kernel], other.get_weights()[kernel])
    images, _ = batch_for(same)
    again = build("MobileNetV2")
    np.testing.assert_array_equal(same(images, training=True), again(images, training=True))  # dropout too


def test_packaged_weights_do_not_depend_on_the_seed() -> None:
    one, other = (build("EfficientNetLite0", seed=seed, weights="imagenet", dropout=seed / 8) for seed in (1, 2))
    assert_equal(backbone_of(one).get_weights(), backbone_of(other).get_weights())
    assert [model.get_layer("dropout").rate for model in (one, other)] == [0.125, 0.25]
    images, _ = batch_for(one)
    logits = np.asarray(one(images))
    assert np.ptp(logits, axis=0).min() > 0.01  # the images matter, which random networks hardly let them do
    np.testing.assert_array_equal(one(images.astype(np.uint8)), logits)
    # Pixels come through the assembly as the network wants them.
    features = np.asarray(build_lite0(image_size=32, weights="imagenet")((images - 127) / 128))
    pooled = keras.Model(one.input, one.get_layer("pool").output)(images)
    np.testing.assert_allclose(pooled, features.mean(axis=(1, 2)), atol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits(mobilenet: keras.Model, tmp_path: Path) -> None:
    images, _ = batch_for(mobilenet)
    exported = with_probabilities(mobilenet)
    logits = np.asarray(mobilenet(images), dtype=np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(exported(images), expected, rtol=1e-5)
    assert exported.output.dtype == "float32"
    assert backbone_of(exported) is backbone_of(mobilenet)
    exported.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), exported(images))
    assert backbone_of(loaded).name == "MobileNetV2"


def test_the_head_is_as_the_recipe_says() -> None:
    config = ModelConfig(backbone="SmallCNN", weights="none", global_pooling="max", hidden_units=7, dropout=0.125)
    model = build_classifier(config, image_size=32, num_classes=NUM_CLASSES, seed=1)
    images, _ = batch_for(model)
    before_head = model.get_layer("SmallCNN").output_shape[1:]
    features = np.asarray(backbone_of(model)(preprocess(tf.constant(images), "tf")))
    assert features.shape[1:] == before_head
    hidden, logits = model.get_layer("hidden"), model.get_layer("logits")
    kernel, bias = hidden.get_weights()
    activated = np.maximum(features.max(axis=(1, 2)) @ kernel + bias, 0)
    expected = activated @ logits.get_weights()[0] + logits.get_weights()[1]
    np.testing.assert_allclose(model(images), expected, atol=1e-5)
    assert [layer.name for layer in model.layers[-4:]] == ["pool", "hidden", "dropout", "logits"]
    assert model.get_layer("dropout").rate == 0.125


def test_wrong_requests(mobilenet: keras.Model) -> None:
    with pytest.raises(InputError, match="`num_classes` must be at least 2; received 1"):
        build_classifier(ModelConfig(weights="none"), image_size=32, num_classes=1, seed=1)
    with pytest.raises(InputError, match=r"`fine_tune\.layers` must be at least 1; received 0"):
        set_trainable_top(mobilenet, layers=0)
    image = keras.Input((4,))
    with pytest.raises(InputError, match="the model 'mine' has no backbone of imagemill's table in it"):
        backbone_of(keras.Model(image, keras.layers.Dense(2)(image), name="mine"))
