"""The architecture report: against Keras's own counts for every backbone, and against published numbers."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from pipelines.config import BACKBONE_NAMES, ModelConfig
from pipelines.models.assemble import build_classifier, walk_layers
from pipelines.models.backbones import BACKBONES
from pipelines.models.lite0 import build_lite0
from pipelines.report.architecture import describe_model
from pipelines.report.formulas import FORMULAS

APPLICATIONS = keras.applications


def calls(model: keras.Model) -> list[tuple[Any, Any]]:
    """Each layer but models and inputs with its output tensor, by Keras's own lists of layers."""
    inner = [layer for layer in walk_layers(model) if not isinstance(layer, (keras.Model, keras.layers.InputLayer))]
    return [(layer, layer.output) for layer in inner]


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_backbone_has_keras_s_own_shapes_and_counts(name: Any) -> None:
    config = ModelConfig(backbone=name, weights="none")
    model = build_classifier(config, image_size=BACKBONES[name].min_image_size + 5, num_classes=3, seed=1)
    report = describe_model(model)
    assert report.parameters == model.count_params()
    rows = {row.name.rpartition("/")[2]: row for row in report.layers}
    checked = calls(model)
    assert len(checked) > 20
    for layer, output in checked:
        row = rows[layer.name]
        assert (row.name, row.shape) == (row.name, tuple(output.shape[1:]))
        assert (row.name, row.parameters) == (row.name, layer.count_params())
        # What Keras would be asked for is no check of the formulas.
        assert row.kind in FORMULAS, row.name
    assert report.multiply_adds > 0
    keras.backend.clear_session()


# MobileNetV2: table 4 of arXiv 1801.04381 (300M); ResNet-50: table 1 of arXiv 1512.03385 (3.8e9); EfficientNet-B0: table 2 of
# arXiv 1905.11946 (.39B); each with its 1000 classes at 224 px.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "published"),
    [(APPLICATIONS.MobileNetV2, 300e6), (APPLICATIONS.ResNet50, 3.8e9), (APPLICATIONS.EfficientNetB0, 0.39e9)],
    ids=["MobileNetV2", "ResNet50", "EfficientNetB0"],
)
def test_multiply_adds_are_the_published_ones(build: Any, published: float) -> None:
    report = describe_model(build(weights=None, input_shape=(224, 224, 3)))
    assert report.multiply_adds == pytest.approx(published, rel=0.02)
    assert report.field.stride_px == 32
    if build is APPLICATIONS.ResNet50:  # resnet_v1_50 in the table of Araujo, Norris and Sim, Distill 2019
        assert report.field.size_px == 483


def test_fields_grow_by_kernels_and_strides() -> None:
    """By hand: 3x3 sees 3; pooled 2x2 4, every 2 px; 3x3 with gaps of 2 another 4 * 2; a 1x1 and a ReLU nothing more."""
    layers = keras.layers
    stack = [layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.Conv2D(4, 3, dilation_rate=2), layers.Conv2D(2, 1)]
    model = keras.Sequential([keras.Input((20, 20, 3)), *stack, layers.ReLU(), layers.GlobalMaxPooling2D()])
    fields = [row.field for row in describe_model(model).layers[1:]]
    assert [(field.size_px, field.stride_px) for field in fields[:-1]] == [(3, 1), (4, 2), (12, 2), (12, 2), (12, 2)]
    assert fields[-1].is_whole


def test_branches_take_the_largest_field_and_a_gate_takes_nothing_away() -> None:
    layers = keras.layers
    image = keras.Input((16, 16, 4))
    wide, narrow = layers.Conv2D(4, 5, padding="same")(image), layers.Conv2D(4, 3, padding="same")(image)
    both = layers.Add(name="both")([wide, narrow])
    gate = layers.Dense(4, name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(both))
    model = keras.Model(image, layers.Multiply(name="gated")([both, gate]))
    fields = {row.name: row.field for row in describe_model(model).layers}
    assert fields["both"].size_px == 5
    assert fields["gate"].is_whole
    assert (fields["gated"].size_px, fields["gated"].is_whole) == (5, False)


def test_a_layer_that_is_called_twice_costs_twice_and_weighs_once() -> None:
    image = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same")
    report = describe_model(keras.Model(image, shared(shared(image))))
    assert report.parameters == shared.count_params()
    assert report.multiply_adds == 2 * 64 * 81
    assert report.field.size_px == 5


def test_multiply_adds_leave_bias_and_normalization_out() -> None:
    network = build_lite0(image_size=32, weights=None, include_top=True)
    convolutions = [layer for layer in network.layers if hasattr(layer, "kernel")]
    by_kernels = sum(
        int(keras.ops.size(layer.kernel)) * (layer.output.shape[1] ** 2 if len(layer.output.shape) == 4 else 1)
        for layer in convolutions
    )
    assert describe_model(network).multiply_adds == by_kernels
