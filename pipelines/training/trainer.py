"""One model in training: a step, a validation, and all variables that the next step depends on.

Keras's `fit` resets what it counts at every start and keeps its callbacks' counters to itself, so it can't go on in the
middle of an epoch as if nothing had happened. The step here is the same arithmetic with its state in view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True)
class Learner:
    """What a phase trains, in parts.

    Attributes:
        suffix: what learns; gives logits float32 [B, classes].
        prefix: the frozen part below it, called with `training=False`; None where the suffix takes what is stored of an image,
            or where nothing is frozen.
        augmentation: layers in front of both that change training images at random, or None.
    """

    suffix: keras.Model
    prefix: keras.Model | None = None
    augmentation: keras.Layer | None = None

    def __call__(self, inputs: Any, *, training: bool) -> Any:
        """Logits of a batch, as inside the step's graph."""
        inputs = tf.cast(inputs, tf.float32)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, training=training)
        if self.prefix is not None:
            inputs = self.prefix(inputs, training=False)
        return self.suffix(inputs, training=training)


class Trainer:
    """Trains a model that gives logits, with Adam on the cross-entropy.

    Compiled for the layers that are trainable when it is made.

    Args:
        learner: what is trained.
        learning_rate: of the first step.
        element_spec: of the training batches, (images, labels): labels int64 [B], or float32 [B, classes] that sum to 1.
    """

    def __init__(self, learner: Learner, *, learning_rate: float, element_spec: Any) -> None:
        self._learner = learner
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self.optimizer.build(learner.suffix.trainable_variables)
        self._loss, self._accuracy = keras.metrics.Mean(), keras.metrics.Mean()
        self._step = tf.function(self._train_step, input_signature=element_spec, jit_compile=False)
        self._judge = tf.function(self._validation_step, reduce_retracing=True, jit_compile=False)

    @property
    def steps_done(self) -> int:
        """How many steps the optimizer has made."""
        return int(self.optimizer.iterations)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.optimizer.learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    def start_epoch(self) -> None:
        """Forgets the running means of the epoch before."""
        self._loss.reset_state()
        self._accuracy.reset_state()

    def step(self, images: Any, labels: Any) -> float:
        """One step of the optimizer; returns the batch's mean loss in nats."""
        return float(self._step(images, labels))

    def running_means(self) -> tuple[float, float]:
        """Mean loss and accuracy over the images of this epoch so far, each as it was seen before its step."""
        return float(self._loss.result()), float(self._accuracy.result())

    def validate(self, batches: Any, after_batch: Callable[[], None]) -> tuple[float, float]:
        """Mean loss and accuracy over a dataset of (images, labels int64 [B]); changes no state."""
        loss_sum, right, images_seen = 0.0, 0, 0
        for images, labels in batches:
            losses, hits = self._judge(images, labels)
            loss_sum += float(np.sum(losses, dtype=np.float64))
            right += int(np.sum(hits))
            images_seen += len(hits)
            after_batch()
        return loss_sum / images_seen, right / images_seen

    def values(self) -> list[NDArray[Any]]:
        """Copies of everything that the next step depends on: weights, optimizer, random state, running means."""
        return [np.array(variable) for variable in self._variables()]

    def restore(self, values: Sequence[NDArray[Any]]) -> bool:
        """Takes up what `values` gave; False, with nothing changed, where shapes or types are those of another model."""
        variables = self._variables()
        if [(value.shape, value.dtype) for value in values] != [
            (tuple(variable.shape), np.dtype(variable.dtype)) for variable in variables
        ]:
            return False
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return True

    def _variables(self) -> list[Any]:
        layers = self._learner.augmentation
        return [
            *self._learner.suffix.variables,
            *(layers.variables if layers is not None else ()),
            *self.optimizer.variables,
            *self._loss.variables,
            *self._accuracy.variables,
        ]

    def _train_step(self, images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = self._learner(images, training=True)
            losses, hits = _judge_logits(logits, labels)
            loss = tf.reduce_mean(losses)
        weights = self._learner.suffix.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self._loss.update_state(losses)
        self._accuracy.update_state(tf.cast(hits, tf.float32))
        return loss

    def _validation_step(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return _judge_logits(self._learner(images, training=False), labels)


def _judge_logits(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Cross-entropy in nats, float32 [B], and whether the likeliest class is the labelled one, bool [B]."""
    predicted = tf.argmax(logits, axis=1)
    if labels.dtype.is_integer:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return losses, tf.equal(predicted, tf.cast(labels, tf.int64))
    losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return losses, tf.equal(predicted, tf.argmax(labels, axis=1))
