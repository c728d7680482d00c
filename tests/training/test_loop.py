"""One phase: what is counted, when it ends, and what an interruption leaves."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import PhaseConfig
from pipelines.data.batches import own_errors
from pipelines.errors import RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.training import loop
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.trainer import Learner, Trainer

IMAGES = np.random.default_rng(1).normal(size=(20, 2, 2, 3)).astype(np.float32)
LABELS = (IMAGES.mean((1, 2, 3)) > 0).astype(np.int64)
BATCH, STEPS = 8, 3


def batches_from(images: Any, labels: Any) -> Any:
    return lambda step: tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH).repeat().skip(step % STEPS)


def build(classes: int = 2) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dropout(0.2, seed=2), keras.layers.Dense(classes)]
    return keras.Sequential(layers)


def phase(
    *,
    images: Any = IMAGES,
    labels: Any = LABELS,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
    model: keras.Model | None = None,
    **settings: Any,
) -> PhaseRun:
    validation = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(7)
    data = PhaseData(batches_from(images, labels), validation, steps_per_epoch=STEPS, images_per_epoch=len(images))
    model = model or build()
    config = PhaseConfig.model_validate({"epochs": 3, "learning_rate": 1e-2, **settings})
    return PhaseRun(
        Learner(model), model, data, name="head", settings=config, best=BestWeights(), checkpoints=checkpoints, report=report
    )


def test_a_row_is_what_keras_would_have_counted() -> None:
    model, run = build(), phase(epochs=2)
    run.run()
    model.compile(
        keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    history = model.fit(
        batches_from(IMAGES, LABELS)(0),
        steps_per_epoch=STEPS,
        epochs=2,
        validation_data=tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(7),
        shuffle=False,
        verbose=0,
    ).history
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [row[name] for row in run.rows] == pytest.approx(history[name], rel=1e-5)
    assert [row["epoch"] for row in run.rows] == [1, 2]


def test_soft_labels_are_counted_by_their_likeliest_class() -> None:
    hard, soft = phase(), phase(labels=np.eye(2, dtype=np.float32)[LABELS])
    hard.run()
    soft.run()
    for name in ("loss", "accuracy", "val_loss"):
        assert [row[name] for row in soft.rows] == pytest.approx([row[name] for row in hard.rows], rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_the_way_out(value: float) -> None:
    images = IMAGES.copy()
    images[BATCH] = value
    with pytest.raises(RunError, match=r"the loss became \w+ at step 2 of epoch 1 of phase `head`; lower `head.learning_rate`"):
        phase(images=images).run()


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_row_that_can_not_be_read_ends_the_run_in_our_words(part: str) -> None:
    def damaged(*_: Any) -> Any:
        raise RunError("shard\n1 is damaged (row 3); remove it and run again")

    def with_damage(dataset: Any) -> Any:
        def damage(images: Any, labels: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(damaged, [images], tf.float32), images.shape), labels

        return dataset.map(damage)

    run = phase()
    if part == "training":
        run._data = replace(run._data, batches=lambda step: with_damage(batches_from(IMAGES, LABELS)(step)))
    else:
        run._data = replace(run._data, validation=with_damage(run._data.validation))
    with pytest.raises(RunError, match=r"^shard\n1 is damaged \(row 3\); remove it and run again$"):
        run.run()


def test_other_errors_of_tensorflow_stay_as_they_are() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), own_errors():
        tf.reshape(tf.zeros([3]), [2])


def test_a_validation_that_is_no_number_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda *_: (math.nan, 0.5))
    with pytest.raises(RunError, match="at the validation after epoch 1 of phase `head`"):
        phase().run()


def test_the_rate_is_cut_and_the_phase_ends_when_the_loss_no_longer_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.9, 0.95, 0.95, 0.95, 0.95])
    monkeypatch.setattr(Trainer, "validate", lambda *_: (next(losses), 0.5))
    run = phase(epochs=9, patience=3, plateau_patience=2, plateau_factor=0.5)
    run.run()
    assert [row["val_loss"] for row in run.rows] == [1.0, 0.9, 0.95, 0.95, 0.95]
    assert [row["learning_rate"] for row in run.rows] == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.005])
    assert (run.best.epoch, run.best.val_loss) == (2, 0.9)


class Terminated(BaseException):
    """As Prefect's TerminationSignal, which is no Exception."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 6])
def test_an_interrupted_phase_goes_on_at_its_step(
    tmp_path: Path, stop_at: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 0)
    whole, model = phase(), build()
    whole.run()
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1000)
    seen = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if sum(not entry.milestone for entry in seen) == stop_at:
            raise error

    with pytest.raises(error):
        phase(checkpoints=checkpoints, report=interrupt).run()
    told: list[str] = []
    resumed = phase(checkpoints=checkpoints, model=model, report=lambda progress: told.append(progress.detail))
    resumed.run()
    assert told[0] == f"goes on from its checkpoint at step {stop_at} of 9"

    def without_seconds(run: PhaseRun) -> list[dict[str, Any]]:
        return [row | {"seconds": 0} for row in run.rows]

    assert without_seconds(resumed) == without_seconds(whole)
    for mine, other in zip(resumed.best.weights, whole.best.weights, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("during", ["step", "validate"])
def test_a_signal_in_the_middle_of_tensorflow_waits_for_its_end(
    tmp_path: Path, during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, checkpoints = getattr(Trainer, during), Checkpoints(tmp_path / "checkpoints", every_steps=1000)

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, during, interrupted)
        phase(checkpoints=checkpoints).run()
    saved = checkpoints.latest(say=pytest.fail)
    assert saved is not None
    assert saved.step == (1 if during == "step" else STEPS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_checkpoint_of_another_model_is_said_and_does_not_stand_in_the_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1)
    phase(checkpoints=checkpoints).run()
    told: list[str] = []
    run = phase(checkpoints=checkpoints, model=build(classes=3), epochs=1, report=lambda progress: told.append(progress.detail))
    run.run()
    assert len(run.rows) == 1
    assert told[0] == "its checkpoint is of another model and is removed; the phase starts anew"
    newest = checkpoints.latest(say=told.append)
    assert newest is not None
    assert newest.step == STEPS


def test_a_finished_phase_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1000)
    first = phase(checkpoints=checkpoints)
    first.run()
    monkeypatch.delattr(Trainer, "step")
    again = phase(checkpoints=checkpoints)
    again.run()
    assert again.rows == first.rows
