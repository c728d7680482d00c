"""The optimizer of a phase: Keras's own, with a rate for each variable and weight decay where it belongs.

Clipping, moving averages and the scaling of losses are Keras's. What Keras lacks is a factor on the rate of single
variables: its `MultiOptimizer` would clip and average group by group, and its weight decay goes by the optimizer's one rate,
ten times too strong for a variable that learns at a tenth of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from pipelines.config import FineTuneConfig, PhaseConfig
from pipelines.models.assemble import walk_layers


@dataclass(frozen=True)
class Treatment:
    """How one variable is optimized.

    Attributes:
        factor: on the rate, and with it on the decay.
        weight_decay: per step, times the rate.
    """

    factor: float
    weight_decay: float


def build_optimizer(model: keras.Model, settings: PhaseConfig) -> Any:
    """The optimizer for the layers of a model that are trainable now, with all its variables made.

    Where layers compute in float16 its losses must be scaled by its `scale_loss`, and it leaves out steps whose gradients
    overflow (Keras's LossScaleOptimizer).
    """
    options: dict[str, Any] = {
        "name": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "global_clipnorm": settings.clip_norm or None,
        "use_ema": settings.ema > 0,
        "ema_momentum": settings.ema,
        "treatments": treatments(model, settings),
    }
    if settings.optimizer == "sgd":
        momentum = settings.used_momentum
        optimizer: Any = _TreatedSGD(momentum=momentum, nesterov=momentum > 0, **options)
    else:
        optimizer = _TreatedAdam(**options)
    if any(layer.compute_dtype == "float16" for layer in walk_layers(model)):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def treatments(model: keras.Model, settings: PhaseConfig) -> tuple[Treatment, ...]:
    """How each of the model's trainable variables is optimized, in their order.

    Weights decay only where they have two axes or more: kernels, not biases, nor the scales and offsets of normalizations and
    of LayerScale. The factors of `layer_decay` go by distance from the model's end, counted in layers that have a kernel (a
    normalization goes with the layer before it): that is the same for a network and for its upper part alone, and needs no
    knowledge of what a block is.
    """
    decay = settings.layer_decay if isinstance(settings, FineTuneConfig) else 1.0
    factors: dict[int, float] = {}
    distance = 0
    for layer in reversed([layer for layer in walk_layers(model) if not hasattr(layer, "layers")]):
        factors |= {id(variable): decay**distance for variable in layer.weights}
        distance += any(_is_kernel(variable) for variable in layer.weights)
    return tuple(
        Treatment(factors[id(variable)], settings.used_weight_decay if _is_kernel(variable) else 0.0)
        for variable in model.trainable_variables
    )


def _is_kernel(variable: Any) -> bool:
    return len(variable.shape) > 1


class _Treated:
    """Goes before an optimizer of Keras in the bases of a class.

    Args:
        treatments: of the variables, in the order in which `build` gets them.
        options: of the optimizer.
    """

    def __init__(self, *, treatments: Sequence[Treatment], **options: Any) -> None:
        super().__init__(**options)
        self._treatments = tuple(treatments)

    def _all_reduce_sum_gradients(self, gradients_and_variables: Any) -> Any:
        """Called by Keras on several devices; the step has added the gradients up already, so that they are clipped as one."""
        return gradients_and_variables

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step; called by Keras, in graph mode too."""
        base: Any = super()
        treatment = self._treatments[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        if treatment.factor != 1:
            learning_rate = learning_rate * treatment.factor
        if treatment.weight_decay:
            variable.assign_sub(variable * learning_rate * treatment.weight_decay)
        base.update_step(gradient, variable, learning_rate)


class _TreatedAdam(_Treated, keras.optimizers.Adam):
    """Adam, and AdamW where weights decay: in Keras one is the other without decay."""


class _TreatedSGD(_Treated, keras.optimizers.SGD):
    """SGD with momentum."""
