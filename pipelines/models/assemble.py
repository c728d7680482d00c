"""Puts a head on a backbone, and says which layers learn in which phase.

BatchNormalization layers of a pretrained backbone never learn. In Keras 3.15 a functional model overrides the
`training=False` of a nested call by the outer call's `training=True`, so the usual `base(x, training=False)` does not keep
their moving statistics still; `trainable = False` on each of these layers does. Those of a from-scratch backbone have to
learn, like all of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from pipelines.config import ModelConfig
from pipelines.defaults import FROM_SCRATCH
from pipelines.errors import InputError
from pipelines.models.backbones import BACKBONES, build_backbone, preprocess
from pipelines.models.top_layers import first_learning


def build_classifier(config: ModelConfig, *, image_size: int, num_classes: int, seed: int) -> keras.Model:
    """Builds pixels -> preprocessing -> backbone -> global pooling -> head, ready for phase 1.

    The head is a hidden ReLU layer where `hidden_units` asks for one, dropout, and a layer that gives the logits.

    Sets the seeds of Python, NumPy and TensorFlow for the whole process (`keras.utils.set_random_seed`), because the
    networks of `keras.applications` take no seed: two builds with one seed have equal weights, random backbones too.

    Args:
        config: the backbone, its weights, the pooling and the head.
        image_size: side of the square input, in px.
        num_classes: number of logits, at least 2.
        seed: of the head's initial weights, of dropout, and of all that is random in the backbone; 0..2**32-1.

    Returns:
        A model of RGB [B, image_size, image_size, 3] in 0..255, float32 (uint8 is cast), to float32 logits
        [B, num_classes]. It is saved and loaded without custom objects. Only the head is trainable.

    Raises:
        InputError: fewer than 2 classes, or see `build_backbone`.
        WeightsUnavailableError: see `build_backbone`.
    """
    if num_classes < 2:
        raise InputError(f"`num_classes` must be at least 2; received {num_classes}")
    keras.utils.set_random_seed(seed)
    backbone = build_backbone(config.backbone, image_size=image_size, weights=config.weights, blocks=config.blocks)
    image = keras.Input((image_size, image_size, 3), name="image", dtype="float32")
    features = backbone(preprocess(image, BACKBONES[config.backbone].preprocessing))
    pooling = keras.layers.GlobalAveragePooling2D if config.global_pooling == "average" else keras.layers.GlobalMaxPooling2D
    x = pooling(name="pool")(features)
    if config.hidden_units:
        x = keras.layers.Dense(config.hidden_units, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(config.dropout, seed=seed, name="dropout")(x)
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        dtype="float32",  # also under mixed precision: the softmax of float16 logits loses small probabilities
        name="logits",
    )(x)
    model = keras.Model(image, logits, name="classifier")
    set_trainable_head(model)
    return model


def backbone_of(model: keras.Model) -> keras.Model:
    """Returns the backbone inside a model of `build_classifier` or `with_probabilities`, loaded ones too.

    Raises:
        InputError: there is no backbone of the table in it.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.name in BACKBONES:
            return layer
    raise InputError(f"the model {model.name!r} has no backbone of imagemill's table in it")


def set_trainable_head(model: keras.Model) -> None:
    """Phase 1: all layers but the backbone learn, and these have weights only in the head. Compile afterwards.

    Raises:
        InputError: no backbone in the model.
    """
    backbone = backbone_of(model)
    _set_trainable(model, trainable=True)
    _set_trainable(backbone, trainable=False)


def set_trainable_top(model: keras.Model, *, layers: int | str) -> None:
    """Phase 2: the head and the top of the backbone learn. Compile afterwards.

    BatchNormalization does not, unless the backbone is a from-scratch one.

    Args:
        model: of `build_classifier`.
        layers: as in a recipe's `fine_tune.layers`: how many of the last entries of the backbone's `layers`, counted like the
            usual recipe's `base.layers[-layers:]`, so that layers without weights count; `all`; or the start of their names up
            to an underscore, such as block6a or conv5_block1: all from the first such layer on. An entry that is itself a model
            (as in ConvNeXt) learns whole.

    Raises:
        InputError: fewer than 1 layer, no layer of that name, or no backbone in the model.
    """
    backbone = backbone_of(model)
    first = first_learning([layer.name for layer in backbone.layers], layers, backbone=backbone.name)
    _set_trainable(model, trainable=True)  # a layer learns only if all models around it do
    for layer in backbone.layers[:first]:
        _set_trainable(layer, trainable=False)
    if backbone.name in FROM_SCRATCH:
        return
    for layer in walk_layers(backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def with_probabilities(model: keras.Model) -> keras.Model:
    """Adds a softmax for export, sharing all layers and weights with `model`; float32 [B, num_classes] that sum to 1."""
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(model.output)
    return keras.Model(model.input, probabilities, name=model.name)


def walk_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields a layer and, if it is a model, all that is in it at any depth."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from walk_layers(inner)


def _set_trainable(layer: keras.Layer, *, trainable: bool) -> None:
    """Sets every layer by itself.

    `model.trainable = True` is meant to reach the layers inside, but on TensorFlow an assignment of the value that an
    attribute already has is skipped: layers frozen inside a trainable model would stay frozen
    (keras/src/backend/tensorflow/trackable.py, `KerasAutoTrackable.__setattr__`).
    """
    for inner in walk_layers(layer):
        inner.trainable = trainable
