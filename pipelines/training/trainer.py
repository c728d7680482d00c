"""One model in training: a step, a validation, and all variables that the next step depends on.

Keras's `fit` resets what it counts at every start and keeps its callbacks' counters to itself, so it can't go on in the
middle of an epoch as if nothing had happened. The step here is the same arithmetic with its state in view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import PhaseConfig
from pipelines.training.objective import cross_entropy, hits
from pipelines.training.optimizers import build_optimizer
from pipelines.training.replicas import share_of


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
    """Trains a model that gives logits, on the cross-entropy.

    Compiled for the layers that are trainable when it is made, and for the devices of the `mirrored_on` around it.

    Args:
        learner: what is trained.
        settings: of the phase: the optimizer and the loss.
        element_spec: of the training batches, (images, labels): labels int64 [B], or float32 [B, classes] that sum to 1.
        class_weights: [classes], of the training loss; None weighs all the same.

    Attributes:
        weights_finite: whether the model's numbers, and the sum of their squares, are finite after the last step. The loss does
            not tell: TensorFlow's max pooling and ReLU make numbers of NaN.
    """

    def __init__(
        self,
        learner: Learner,
        settings: PhaseConfig,
        *,
        element_spec: Any,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:
        self.weights_finite = True
        self._learner = learner
        self.optimizer = build_optimizer(learner.suffix, settings)
        self._averages = settings.ema > 0
        self._loss_options: dict[str, Any] = {"label_smoothing": settings.label_smoothing, "class_weights": class_weights}
        # Sums over the epoch so far: losses, images that were right, images. Not Keras's metrics, which keep a sum per device.
        self._sums = [_counter("float32") for _ in range(3)]
        # Not the optimizer's own count, which leaves out the steps that overflow in float16.
        self._steps_done = _counter("int64")
        self._strategy = tf.distribute.get_strategy()
        self._devices = self._strategy.num_replicas_in_sync
        # No autograph: there is nothing to convert, and it would read every function that they call.
        self._step = tf.function(self._checked_step, input_signature=element_spec, jit_compile=False, autograph=False)
        self._judge = tf.function(self._validation_step, reduce_retracing=True, jit_compile=False, autograph=False)

    @property
    def steps_done(self) -> int:
        """How many batches have been trained on."""
        return int(_value(self._steps_done))

    @property
    def in_float16(self) -> bool:
        """Whether layers compute in a type whose largest number is 65,504."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(_value(self.optimizer.learning_rate))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    def start_epoch(self) -> None:
        """Forgets the running means of the epoch before."""
        for total in self._sums:
            total.assign(0.0)

    def step(self, images: Any, labels: Any) -> float:
        """One step of the optimizer; returns the batch's mean loss in nats, as it was before the step."""
        loss, finite = self._step(images, labels)
        self.weights_finite = bool(finite)
        return float(loss)

    def running_means(self) -> tuple[float, float]:
        """Mean loss and accuracy over the images of this epoch so far, each as it was seen before its step."""
        losses, right, images = map(_value, self._sums)
        return float(losses / images), float(right / images)

    def validate(self, batches: Any, after_batch: Callable[[], None]) -> tuple[float, float]:
        """Mean loss and accuracy over a dataset of (images, labels int64 [B]); changes no state."""
        loss_sum, right, images_seen = 0.0, 0, 0
        for images, labels in batches:
            losses, right_ones = self._judge(images, labels)
            loss_sum += float(np.sum(losses, dtype=np.float64))
            right += int(np.sum(right_ones))
            images_seen += len(labels)
            after_batch()
        return loss_sum / images_seen, right / images_seen

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """In this block the model has the moving averages for its weights, where the phase keeps them; else its own."""
        if not self._averages or not int(_value(self.optimizer.iterations)):  # until its first step they are 0
            yield
            return
        variables = self._learner.suffix.trainable_variables
        own = [np.array(variable) for variable in variables]
        try:
            self.optimizer.finalize_variable_values(variables)
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

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
            *self._sums,
            self._steps_done,
        ]

    def _checked_step(self, images: Any, labels: Any) -> tuple[Any, Any]:
        """The step, and whether the model is finite after it: one pass over it, and one operation for each variable."""
        loss = self._train_step(images, labels) if self._devices == 1 else self._mirrored_step(images, labels)
        numbers = [variable.value for variable in self._learner.suffix.variables if "float" in variable.dtype]
        return loss, tf.math.is_finite(tf.add_n([tf.nn.l2_loss(tf.cast(number, tf.float32)) for number in numbers]))

    def _mirrored_step(self, images: Any, labels: Any) -> Any:
        """The step on several devices; the batch's mean loss, as on one."""
        losses = self._strategy.run(lambda: self._train_step(share_of(images), share_of(labels)))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def _train_step(self, images: Any, labels: Any) -> Any:
        """The step on one device with its images; returns its part of the batch's mean loss."""
        with tf.GradientTape() as tape:
            logits = self._learner(images, training=True)
            losses = cross_entropy(logits, labels, **self._loss_options)
            loss = tf.reduce_mean(losses) / self._devices
            scaled = self.optimizer.scale_loss(loss)
        weights = self._learner.suffix.trainable_variables
        gradients = tape.gradient(scaled, weights)
        right = tf.cast(hits(logits, labels), tf.float32)
        sums = [tf.reduce_sum(losses), tf.reduce_sum(right), tf.cast(tf.size(right), tf.float32)]
        if self._devices > 1:  # here, and not in Keras's optimizer, which would clip each device's part
            gradients, sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, (gradients, sums))
        self.optimizer.apply(gradients, weights)
        for total, of_batch in zip(self._sums, sums, strict=True):
            total.assign_add(of_batch)
        self._steps_done.assign_add(1)
        return loss

    def _validation_step(self, images: Any, labels: Any) -> tuple[Any, Any]:
        logits = self._learner(images, training=False)
        return cross_entropy(logits, labels), hits(logits, labels)


def _counter(dtype: str) -> keras.Variable:
    """A variable that all devices change by the same amount."""
    return keras.Variable(0, dtype=dtype, trainable=False, aggregation="only_first_replica")


def _value(variable: Any) -> NDArray[Any]:
    """What is in a variable, on one device or several."""
    return np.array(variable)
