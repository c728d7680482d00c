"""The freeze line: below it nothing of a network learns, so that what it makes of an image never changes.

A network is split there into a frozen prefix and a suffix that learns. Both share their weights with the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipelines.models.assemble import backbone_of
from pipelines.models.backbones import BACKBONES, preprocess
from pipelines.models.fast_layers import with_fast_layers


@dataclass(frozen=True)
class SplitModel:
    """A classifier in two parts.

    Attributes:
        line: name of the operation whose output is the activation at the freeze line.
        position: of that operation in the backbone's topological order, or of its pooling, behind all of them: unlike names
            that Keras makes up, the same in each process.
        prefix: float32 [B, S, S, 3] in 0..255 to activations float32 [B, ...]; nothing in it learns, and it is to be called
            with `training=False`, since some backbones drop paths at random in training.
        suffix: activations to logits float32 [B, classes].
    """

    line: str
    position: int
    prefix: keras.Model
    suffix: keras.Model

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's activation."""
        return tuple(self.suffix.input_shape[1:])


def split_at_freeze_line(classifier: keras.Model) -> SplitModel | None:
    """Splits a classifier at the deepest place below all that learns through which a single tensor passes.

    Args:
        classifier: of `build_classifier`, with its layers set trainable as the phase wants them.

    Returns:
        The parts, or None where the first layer that has a kernel learns already. Where nothing of the backbone learns, the
        line is behind the pooling: its dropout belongs to the head.
    """
    backbone = backbone_of(classifier)
    pool, *head = _layers_behind(classifier, backbone)
    if not backbone.trainable_weights:
        prefix = keras.Model(classifier.input, pool.output, name="prefix")
        return SplitModel(pool.name, len(backbone.operations), prefix, _chain(pool.output, head, name="suffix"))
    position = _last_cut(backbone)
    if position is None:
        return None
    line = backbone.operations[position]
    image = keras.Input(classifier.input_shape[1:], name="image", dtype="float32")
    pixels = preprocess(image, BACKBONES[backbone.name].preprocessing)
    prefix = keras.Model(image, keras.Model(backbone.input, line.output, name="lower")(pixels), name="prefix")
    upper = with_fast_layers(keras.Model(line.output, backbone.output, name="upper"))
    return SplitModel(line.name, position, prefix, _chain(line.output, [upper, pool, *head], name="suffix"))


def build_pooling(classifier: keras.Model, position: int) -> keras.Model:
    """The way from a line inside the backbone on: activations float32 [B, ...] to pooled features float32 [B, channels]."""
    backbone = backbone_of(classifier)
    activation = backbone.operations[position].output
    upper = keras.Model(activation, backbone.output, name="upper")
    return _chain(activation, [upper, _layers_behind(classifier, backbone)[0]], name="pooling")


def weights_digest(model: keras.Model, *, name: str) -> str:
    """SHA-256 (hex) of what a frozen model computes: the name of its architecture and all of its weights."""
    digest = hashlib.sha256(name.encode())
    for weight in model.weights:
        array = np.ascontiguousarray(weight)
        digest.update(json.dumps([array.shape, str(array.dtype)]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def _layers_behind(classifier: keras.Model, backbone: keras.Model) -> list[keras.Layer]:
    """The pooling and the layers of the head, a chain."""
    layers = list(classifier.layers)
    return layers[layers.index(backbone) + 1 :]


def _chain(activation: Any, layers: Iterable[keras.Layer], *, name: str) -> keras.Model:
    """A model of its own that takes such activations through some layers in turn."""
    first = out = keras.Input(activation.shape[1:], name="activation", dtype="float32")
    for layer in layers:
        out = layer(out)
    return keras.Model(first, out, name=name)


def _last_cut(backbone: keras.Model) -> int | None:
    """The position of the last operation, before any that learns, whose output is all that later ones need.

    One walk in topological order finds them all: whatever does not need such an output is needed to make it, so that at
    some moment of the walk it alone is waiting to be used. None if below lie only pixels: the input, or what padding, rescaling
    and normalisation make of it, which is larger and no work to make again.
    """
    operations = backbone.operations
    uses = Counter(id(tensor) for operation in operations for tensor in _inputs(operation))
    uses.update(id(tensor) for tensor in backbone.outputs)
    waiting: Counter[int] = Counter()
    cut, are_pixels = None, True
    for position, operation in enumerate(operations):
        if getattr(operation, "trainable_weights", None):
            break
        are_pixels = are_pixels and not _has_kernel(operation)
        waiting.subtract(id(tensor) for tensor in _inputs(operation))
        waiting.update({id(tensor): uses[id(tensor)] for tensor in keras.tree.flatten(operation.output)})
        waiting = +waiting  # those that are used up are left out
        if list(waiting) == [id(operation.output)] and not are_pixels:
            cut = position
    return cut


def _has_kernel(operation: Any) -> bool:
    """Whether it mixes channels or neighbours by weights; what only scales or shifts has a single axis of them."""
    return any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))


def _inputs(operation: Any) -> list[Any]:
    return [] if isinstance(operation, keras.layers.InputLayer) else keras.tree.flatten(operation.input)
