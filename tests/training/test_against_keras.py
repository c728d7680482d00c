"""A phase with each technique, against `fit` with Keras's own means to the same end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import FineTuneConfig, PhaseConfig
from pipelines.progress import ignore_progress
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.objective import balanced_class_weights
from pipelines.training.precision import layers_in
from pipelines.training.trainer import Learner, Trainer

pytestmark = pytest.mark.slow
NUMBERS = np.random.default_rng(5)
IMAGES = NUMBERS.normal(size=(20, 6, 6, 3)).astype(np.float32)
LABELS = (IMAGES.mean((1, 2, 3)) > np.quantile(IMAGES.mean((1, 2, 3)), 0.7)).astype(np.int64)
BATCH, STEPS, EPOCHS, RATE = 8, 3, 4, 0.05
VALIDATION = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(7)
NOT_DECAYED = ["bias", "gamma", "beta"]


@dataclass(frozen=True)
class Technique:
    """A recipe's words, and Keras's for the same.

    Attributes:
        settings: of the phase, besides its epochs and rate.
        optimizer: Keras's, made for a model.
        fit: arguments of `fit`.
        loss: Keras's, whose labels are one-hot.
        precision: of the layers.
        tolerance: relative, of losses.
    """

    settings: dict[str, Any]
    optimizer: Callable[[keras.Model], Any]
    fit: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    precision: Any = "float32"
    tolerance: float = 1e-5


def adam(**options: Any) -> Callable[[keras.Model], Any]:
    return lambda _: keras.optimizers.Adam(**{"learning_rate": RATE, **options})


def adamw(model: keras.Model) -> Any:
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def decaying_sgd(model: keras.Model) -> Any:
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def by_depth(model: keras.Model) -> Any:
    """An optimizer for each depth; the second normalization goes with the convolution before it."""

    def at(factor: float) -> Any:
        optimizer = keras.optimizers.AdamW(RATE * factor, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
        return optimizer

    head, upper, lower = at(1.0), at(0.5), at(0.25)
    depths = {"head": head, "upper": upper, "upper_norm": upper, "lower": lower, "lower_norm": lower}
    return keras.optimizers.MultiOptimizer(lambda variable: depths[variable.path.split("/")[-2]])


COSINE = keras.optimizers.schedules.CosineDecay(0.0, EPOCHS * STEPS - 4.5, warmup_target=RATE, warmup_steps=4.5)
TECHNIQUES = {
    "nothing": Technique({}, adam()),
    "cosine": Technique({"schedule": "cosine", "warmup_epochs": 1.5}, adam(learning_rate=COSINE)),
    "adamw": Technique({"optimizer": "adamw", "weight_decay": 0.5}, adamw),
    "sgd": Technique({"optimizer": "sgd"}, lambda _: keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True)),
    "sgd without momentum": Technique({"optimizer": "sgd", "momentum": 0}, lambda _: keras.optimizers.SGD(RATE)),
    "decaying sgd": Technique({"optimizer": "sgd", "weight_decay": 0.5}, decaying_sgd),
    "layer decay": Technique({"optimizer": "adamw", "weight_decay": 0.5, "layer_decay": 0.5}, by_depth),
    "clipping": Technique({"clip_norm": 0.1}, adam(global_clipnorm=0.1)),
    "averages": Technique(
        {"ema": 0.8},
        adam(use_ema=True, ema_momentum=0.8),
        fit={"callbacks": lambda: [keras.callbacks.SwapEMAWeights()]},
    ),
    "class weights": Technique(
        {"class_weights": "balanced"}, adam(), fit={"class_weight": lambda: dict(enumerate(balanced_class_weights(LABELS, 2)))}
    ),
    "smoothing": Technique({"label_smoothing": 0.2}, adam(), loss={"label_smoothing": 0.2}),
    # Half a percent: Keras's `fit` has another graph, and sums in 16 bits depend on it.
    "float16": Technique({}, adam(), precision="mixed_float16", tolerance=5e-3),
    "bfloat16": Technique({}, adam(), precision="mixed_bfloat16", tolerance=5e-2),
}


def build(precision: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    with layers_in(precision):
        return keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                layers.Conv2D(4, 3, name="lower"),
                layers.LayerNormalization(name="lower_norm"),
                layers.ReLU(),
                # A bias before BatchNormalization has a gradient of rounding errors, which Adam makes steps of.
                layers.Conv2D(4, 3, use_bias=False, name="upper"),
                layers.BatchNormalization(name="upper_norm"),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2, seed=2),
                layers.Dense(2, dtype="float32", name="head"),
            ]
        )


@cache
def train_here(name: str) -> tuple[PhaseRun, keras.Model]:
    technique = TECHNIQUES[name]
    model = build(technique.precision)
    settings = FineTuneConfig.model_validate(
        {"epochs": EPOCHS, "patience": 9, "learning_rate": RATE, "schedule": "plateau", **technique.settings}
    )
    weights = balanced_class_weights(LABELS, 2) if settings.class_weights == "balanced" else None
    data = PhaseData(lambda _: batches(LABELS), VALIDATION, STEPS, len(IMAGES), class_weights=weights)
    run = PhaseRun(
        Learner(model),
        model,
        data,
        name="fine_tune",
        settings=settings,
        best=BestWeights(),
        checkpoints=None,
        report=ignore_progress,
    )
    run.run()
    return run, model


def batches(labels: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(BATCH).repeat()


def train_with_fit(technique: Technique) -> tuple[dict[str, list[float]], list[Any]]:
    """The history, and the weights after each epoch as they were judged."""
    model, judged = build(technique.precision), []
    one_hot = np.eye(2, dtype=np.float32)
    validation = tf.data.Dataset.from_tensor_slices((IMAGES, one_hot[LABELS])).batch(7)
    options = {name: make() for name, make in technique.fit.items()}
    keep = keras.callbacks.LambdaCallback(on_test_batch_end=lambda *_, **__: judged.append(model.get_weights()))
    options["callbacks"] = [*options.get("callbacks", []), keep]
    plain = keras.metrics.CategoricalCrossentropy(from_logits=True, name="plain")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, **technique.loss)
    model.compile(technique.optimizer(model), loss, metrics=["accuracy", plain])
    options |= {"steps_per_epoch": STEPS, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    history = model.fit(batches(one_hot[LABELS]), validation_data=validation, **options).history
    return history, judged[2::3]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_is_keras_s(name: str) -> None:
    technique = TECHNIQUES[name]
    run, model = train_here(name)
    history, judged = train_with_fit(technique)
    close = {"rel": technique.tolerance, "abs": technique.tolerance}
    assert [row["loss"] for row in run.rows] == pytest.approx(history["loss"], **close)
    assert [row["accuracy"] for row in run.rows] == pytest.approx(history["accuracy"])
    assert [row["val_loss"] for row in run.rows] == pytest.approx(history["val_plain"], **close)
    assert [row["val_accuracy"] for row in run.rows] == pytest.approx(history["val_accuracy"])
    assert run.best.epoch > 1, "weights of a later epoch say more"
    for mine, keras_s in zip(model.get_weights(), judged[run.best.epoch - 1], strict=True):
        np.testing.assert_allclose(mine, keras_s, rtol=10 * technique.tolerance, atol=10 * technique.tolerance)


def test_each_technique_makes_a_difference() -> None:
    losses = {name: tuple(row["val_loss"] for row in train_here(name)[0].rows) for name in TECHNIQUES}
    assert len(set(losses.values())) == len(TECHNIQUES)


def test_small_gradients_survive_float16() -> None:
    """A gradient of 5e-9, below the smallest number of float16, arrives in the weights since the loss is scaled."""
    layers = keras.layers
    with layers_in("mixed_float16"):
        model = keras.Sequential([keras.Input((1,)), layers.Dense(2), layers.Activation("linear", dtype="float32")])
    model.set_weights([np.zeros((1, 2)), np.zeros(2)])
    example = tf.ones((1, 1)), tf.zeros((1,), tf.int64)
    spec = tf.data.Dataset.from_tensors(example).element_spec
    settings = PhaseConfig(optimizer="sgd", momentum=0, learning_rate=1.0)
    Trainer(Learner(model), settings, element_spec=spec, class_weights=np.array([1e-8, 1e-8], np.float32)).step(*example)
    np.testing.assert_allclose(model.layers[0].bias, [5e-9, -5e-9], rtol=1e-2)


def test_a_step_that_overflows_float16_is_left_out_and_counted() -> None:
    model = build("mixed_float16")
    trainer = Trainer(Learner(model), PhaseConfig(ema=0.9), element_spec=batches(LABELS).element_spec)
    trainer.optimizer.dynamic_scale.assign(2.0**40)
    before = [np.array(variable) for variable in model.trainable_variables]
    (batch,) = batches(LABELS).take(1)
    assert np.isfinite(trainer.step(*batch))
    assert (trainer.steps_done, int(trainer.optimizer.iterations)) == (1, 0)
    assert float(trainer.optimizer.dynamic_scale) == 2.0**39
    with trainer.averaged_weights():  # of which there are none yet
        for variable, value in zip(model.trainable_variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)
