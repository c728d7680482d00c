"""The layers of a Keras model, one by one: output shape, parameters, multiply-adds, receptive field and stride.

A pure function of the graph: no weight is read and nothing is run. Models inside of models are walked through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from pipelines.report.formulas import FORMULAS, Cost, Shape


@dataclass(frozen=True)
class Field:
    """What a px of a tensor sees of the image.

    Attributes:
        size_px: side of the square that can influence it, where the image is large enough.
        stride_px: between the squares of two neighbours.
        is_whole: it is all of the image, since a global pooling lies before it.
    """

    size_px: int = 1
    stride_px: int = 1
    is_whole: bool = False


@dataclass(frozen=True)
class LayerReport:
    """One layer where it is called.

    Attributes:
        name: of the layer, with those of the models around it before it: `MobileNetV2/Conv1`.
        kind: the layer's class.
        shape: of its output for one image: (height, width, channels), or (features,).
        parameters: trainable or not; 0 where the layer was counted before, since it is called twice.
        multiply_adds: for one image.
        field: what it sees of the image.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    multiply_adds: int
    field: Field


@dataclass(frozen=True)
class Architecture:
    """All layers, in the order of the work, and their sums."""

    layers: tuple[LayerReport, ...]

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of all layers, for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def field(self) -> Field:
        """Of the last layer that does not see all of the image by a global pooling."""
        return next((layer.field for layer in reversed(self.layers) if not layer.field.is_whole), Field(is_whole=True))


@dataclass(frozen=True)
class _Tensor:
    shape: Shape
    field: Field


def describe_model(model: keras.Model) -> Architecture:
    """Describes a functional or sequential model of images.

    Args:
        model: with one input of fixed size [B, H, W, channels].
    """
    rows: list[LayerReport] = []
    image = _Tensor(tuple(model.input_shape[1:]), Field())
    _walk(model, [image], rows, counted=set(), prefix="")
    return Architecture(tuple(rows))


def see_through(fields: Sequence[Field], cost: Cost) -> Field:
    """The receptive field behind a layer: size + (K - 1) * stride, and stride * S.

    Where branches meet the largest counts, those without a place aside: the gate of a squeeze-and-excitation block sees all of
    the image, and after it every px would.

    Source: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
    """
    placed = [field for field in fields if not field.is_whole]
    if cost.sees_all or not placed:
        return Field(is_whole=True)
    size, stride = max(field.size_px for field in placed), max(field.stride_px for field in placed)
    return Field(size + (cost.kernel - 1) * stride, stride * cost.stride)


def _walk(
    model: keras.Model, inputs: Sequence[_Tensor], rows: list[LayerReport], *, counted: set[int], prefix: str
) -> list[_Tensor]:
    """Adds a row for each call of a layer in the model, and returns what comes out of the model."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    known = {id(tensor): state for tensor, state in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            operation, name = node.operation, prefix + node.operation.name
            received = [known[id(tensor)] for tensor in (node.outputs if node.is_input else node.input_tensors)]
            if isinstance(operation, keras.Model):
                made = _walk(operation, received, rows, counted=counted, prefix=f"{name}/")
            elif node.is_input:
                made = received
                if not prefix:  # the input of a model inside is what was made last
                    rows.append(LayerReport(name, "Input", received[0].shape, 0, 0, received[0].field))
            else:
                row = _report(operation, name, node, received, is_counted=id(operation) in counted)
                rows.append(row)
                made = [_Tensor(row.shape, row.field)]
            counted.add(id(operation))
            known |= {id(tensor): state for tensor, state in zip(node.outputs, made, strict=True)}
    return [known[id(tensor)] for tensor in graph.outputs]


def _report(operation: Any, name: str, node: Any, inputs: Sequence[_Tensor], *, is_counted: bool) -> LayerReport:
    kind = type(operation).__name__
    cost = FORMULAS[kind](operation, [tensor.shape for tensor in inputs]) if kind in FORMULAS else _ask_keras(operation, node)
    field = see_through([tensor.field for tensor in inputs], cost)
    return LayerReport(name, kind, cost.shape, 0 if is_counted else cost.parameters, cost.multiply_adds, field)


def _ask_keras(operation: Any, node: Any) -> Cost:
    """What Keras says of an operation that has no formula: nothing of its multiply-adds, nor of how far it looks."""
    parameters = operation.count_params() if isinstance(operation, keras.Layer) else 0
    return Cost(tuple(node.outputs[0].shape[1:]), parameters)
