"""The classifier that was built last, kept for the next stage of the same process: building one takes most of a second.

Nothing is kept outside of `keeping_classifier`. Importing this module imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.config import ModelConfig

if TYPE_CHECKING:
    import keras


@dataclass
class _Kept:
    """What was built last: the arguments that it follows from, the model, and all of its variables as they were then."""

    arguments: Any = None
    weights: str = ""
    model: Any = None
    values: Any = None


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_classifier() -> Iterator[None]:
    """In this block `take_classifier` gives one and the same model to stages that follow each other and need equal ones."""
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


def take_classifier(
    config: ModelConfig, *, image_size: int, num_classes: int, seed: int, weights_follow: bool = False
) -> keras.Model:
    """As `build_classifier`; inside `keeping_classifier` the model that was taken last, as it was built, where that is equal.

    Who took it before must not use it any more.

    Args:
        config: as there.
        image_size: as there.
        num_classes: as there.
        seed: as there.
        weights_follow: all weights are going to be set, so those that `config` names are not needed.

    Raises: as there.
    """
    import keras
    import tensorflow as tf

    from pipelines.models.assemble import backbone_of, build_classifier, set_trainable_head

    if weights_follow:
        config = config.model_copy(update={"weights": "none"})
    options = {"image_size": image_size, "num_classes": num_classes, "seed": seed}
    kept = _kept.get()
    if kept is None or tf.distribute.has_strategy():  # variables on several devices belong to their strategy
        return build_classifier(config, **options)
    arguments = (config.model_copy(update={"weights": "none"}), options, keras.config.dtype_policy().name)
    alike = kept.arguments == arguments
    if alike and kept.weights != config.weights:
        # Other layers' dropout draws by seeds that depend on how many numbers the initial weights took.
        alike = weights_follow and len(backbone_of(kept.model).variables) == len(backbone_of(kept.model).weights)
    if not alike:
        kept.arguments = None  # nothing, if building fails
        kept.model = build_classifier(config, **options)
        kept.values = [variable.numpy() for variable in kept.model.variables]
        kept.arguments, kept.weights = arguments, config.weights
        return kept.model
    keras.utils.set_random_seed(seed)  # as building does
    for variable, value in zip(kept.model.variables, kept.values, strict=True):
        variable.assign(value)
    set_trainable_head(kept.model)
    return kept.model
