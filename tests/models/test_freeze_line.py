"""The freeze line, for every backbone of the table: the parts make the whole, share its weights, and meet as high as can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import BACKBONE_NAMES, BackboneName, ModelConfig
from pipelines.defaults import FROM_SCRATCH
from pipelines.errors import InputError
from pipelines.models.assemble import backbone_of, build_classifier, set_trainable_head, set_trainable_top
from pipelines.models.backbones import BACKBONES
from pipelines.models.folding import fold_normalization
from pipelines.models.freeze_line import SplitModel, build_pooling, split_at_freeze_line, weights_digest
from pipelines.models.work import count_multiply_adds
from pipelines.report.architecture import describe_model
from tests.models.test_assemble import batch_norms, perturb

pytestmark = [
    # NumPy 2 asks `__array__` of TensorFlow's tensors for a `copy` argument that TensorFlow 2.21 does not know.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.slow,
]
TOP = 30  # layers: in the middle of a block of most networks
Array = np.ndarray[Any, Any]


def build(name: BackboneName = "EfficientNetLite0") -> keras.Model:
    size = max(64, BACKBONES[name].min_image_size)
    model = build_classifier(ModelConfig(backbone=name, weights="none"), image_size=size, num_classes=3, seed=1)
    perturb(model)
    return model


def batch_for(model: keras.Model) -> Array:
    return np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype(np.float32)


def split(model: keras.Model) -> SplitModel:
    parts = split_at_freeze_line(model)
    assert parts is not None
    return parts


@pytest.fixture(scope="module", params=[name for name in BACKBONE_NAMES if name not in FROM_SCRATCH])
def model(request: pytest.FixtureRequest) -> Iterator[keras.Model]:
    yield build(request.param)
    keras.backend.clear_session()


def test_prefix_then_suffix_is_the_whole_and_shares_its_weights(model: keras.Model) -> None:
    images = batch_for(model)
    whole = np.asarray(model(images, training=False))
    for choose in (set_trainable_head, lambda model: set_trainable_top(model, layers=TOP)):
        choose(model)
        parts = split(model)
        activations = parts.prefix(images, training=False)
        assert tuple(activations.shape[1:]) == parts.shape
        logits = np.asarray(parts.suffix(activations, training=False))
        assert np.abs(logits - whole).max() <= 1e-5 * np.abs(whole).max()
        assert parts.prefix.trainable_weights == []
        learns = {id(weight) for weight in model.trainable_weights}
        assert {id(weight) for weight in parts.suffix.trainable_weights} == learns
        assert {id(weight) for weight in [*parts.prefix.weights, *parts.suffix.weights]} >= {id(each) for each in model.weights}


def test_a_folded_prefix_is_the_same_function(model: keras.Model) -> None:
    """But for rounding: as near as its answer to pixels that differ in their last bit, which some random networks blow up."""
    set_trainable_top(model, layers=TOP)
    prefix, images = split(model).prefix, batch_for(model)
    expected, nudged, received = (
        np.asarray(network(pixels, training=False))
        for network, pixels in ((prefix, images), (prefix, np.nextafter(images, 256)), (fold_normalization(prefix), images))
    )
    rounding = np.abs(nudged - expected).max()
    assert np.abs(received - expected).max() <= 1e-5 * np.abs(expected).max() + 30 * rounding


def test_learning_from_stored_activations_is_learning_from_images(model: keras.Model) -> None:
    """Two steps of SGD on the suffix move the weights as two steps on the whole do, and no BatchNorm's statistics."""
    images, labels = batch_for(model), np.array([0, 2])
    set_trainable_top(model, layers=TOP)
    parts, before = split(model), model.get_weights()
    statistics = [np.asarray(weight) for layer in batch_norms(model) for weight in layer.weights]

    def train(forward: Any) -> tuple[list[float], list[Array]]:
        model.set_weights(before)
        losses = []
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, forward())
            weights = [weight.value for weight in model.trainable_weights]
            gradients = tape.gradient(loss, weights)
            rate = 1e-2 / tf.linalg.global_norm(gradients)  # random weights make gradients of any size
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.assign_sub(rate * gradient)
            losses.append(float(loss))
        return losses, model.get_weights()

    stored = parts.prefix(images, training=False)
    # Dropout's draws differ from call to call, so it is off; that it is on in training is tested with the phases.
    from_stored = train(lambda: parts.suffix(stored, training=False))
    from_images = train(lambda: model(images, training=False))
    assert from_stored[0] == pytest.approx(from_images[0], rel=1e-3)
    assert from_stored[0][0] != from_stored[0][1]
    moved = [
        np.concatenate([np.ravel(new - old) for new, old in zip(after, before, strict=True)])
        for _, after in (from_stored, from_images)
    ]
    assert np.linalg.norm(moved[0] - moved[1]) < 0.01 * np.linalg.norm(moved[1])
    parts.suffix(stored, training=True)  # as the phases call it, where statistics would move if they could
    after = [np.asarray(weight) for layer in batch_norms(model) for weight in layer.weights]
    assert all(np.array_equal(one, other) for one, other in zip(statistics, after, strict=True))
    model.set_weights(before)


def test_pooled_features_are_those_of_the_whole(model: keras.Model) -> None:
    images = batch_for(model)
    set_trainable_head(model)
    pooled = split(model).prefix(images, training=False)
    set_trainable_top(model, layers=TOP)
    parts = split(model)
    activations = parts.prefix(images, training=False)
    np.testing.assert_allclose(build_pooling(model, parts.position)(activations), pooled, rtol=1e-4, atol=1e-5)


def test_no_higher_operation_would_do(model: keras.Model) -> None:
    """Below the first layer that learns, every later operation has a way around it from the image to the logits."""
    set_trainable_top(model, layers=TOP)
    position = split(model).position
    operations = backbone_of(model).operations
    first = next(number for number, each in enumerate(operations) if getattr(each, "trainable_weights", None))
    assert position < first
    assert not _has_way_around(operations, position)
    assert all(_has_way_around(operations, number) for number in range(position + 1, first))


def _has_way_around(operations: list[Any], avoided: int) -> bool:
    reached = {id(operations[0].output)}
    for number, operation in enumerate(operations[1:], start=1):
        if number != avoided and any(id(tensor) in reached for tensor in keras.tree.flatten(operation.input)):
            reached.add(id(operation.output))
    return id(operations[-1].output) in reached


@pytest.mark.parametrize(
    ("layers", "line"),
    [(3, "block7a_project_bn"), (20, "block6c_add"), ("block6a", "block5c_add"), ("head_conv", "block7a_project_bn")],
)
def test_a_recipe_names_layers_by_count_or_by_block(layers: int | str, line: str) -> None:
    model = build()
    set_trainable_top(model, layers=layers)
    assert split(model).line == line


@pytest.mark.parametrize(
    ("name", "block", "line"),
    [
        ("MobileNetV2", "block_16", "block_15_add"),
        ("EfficientNetB0", "block7a", "block6d_add"),
        ("EfficientNetV2B0", "block6b", "block6a_project_bn"),
        ("ResNet50", "conv5_block1", "conv4_block6_out"),
        ("ResNet50V2", "conv5_block1", "conv5_block1_preact_relu"),
        ("DenseNet121", "conv5_block1", "pool4_pool"),
    ],
)
def test_blocks_have_the_names_that_keras_gives_them(name: BackboneName, block: str, line: str) -> None:
    model = build(name)
    set_trainable_top(model, layers=block)
    assert split(model).line == line


def test_the_work_of_the_frozen_part_is_that_of_its_kernels(model: keras.Model) -> None:
    """But for Keras's own layers without a kernel, of which `describe` counts a few."""
    set_trainable_head(model)
    described = sum(layer.multiply_adds for layer in describe_model(model).layers if layer.name != "logits")
    whole = count_multiply_adds(split(model).prefix)
    assert whole == pytest.approx(described, rel=0.02)
    set_trainable_top(model, layers=TOP)
    assert 0 < count_multiply_adds(split(model).prefix) < whole


def test_all_layers_leave_no_frozen_part(model: keras.Model) -> None:
    """Padded or rescaled pixels are no activations: to make them again is no work."""
    set_trainable_top(model, layers="all")
    assert split_at_freeze_line(model) is None
    kernels = [layer for layer in backbone_of(model).layers if any(len(weight.shape) > 1 for weight in layer.weights)]
    assert kernels[0].trainable


def test_an_unknown_block_is_refused_with_the_blocks_that_there_are() -> None:
    with pytest.raises(InputError, match=r"`fine_tune.layers` must be a number, all, or a block .*'block8a'.*block7a"):
        set_trainable_top(build(), layers="block8a")


def test_layers_that_learn_nothing_leave_the_line_behind_the_pooling() -> None:
    model = build("ResNet50")
    set_trainable_top(model, layers=3)
    assert split(model).line == "pool"


def test_the_digest_tells_weights_and_architectures_apart() -> None:
    model = build()
    set_trainable_head(model)
    prefix = split(model).prefix
    digest = weights_digest(prefix, name="a")
    assert digest == weights_digest(split(build()).prefix, name="a") != weights_digest(prefix, name="b")
    weight = prefix.weights[5]
    weight.assign(np.asarray(weight) * (1 + 1e-6))
    assert weights_digest(prefix, name="a") != digest
