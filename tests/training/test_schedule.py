"""Rates and patience, against the Keras schedules and callbacks of the same meaning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import PhaseConfig
from pipelines.training.schedule import Patience, rate_at

LOSSES = st.lists(st.floats(0, 2).map(lambda loss: round(loss, 3)), min_size=1, max_size=30)


STEPS = 7


def rates(**settings: Any) -> list[float]:
    """Of all steps of a phase of 10 epochs, and what a step after the last would have."""
    phase = PhaseConfig.model_validate({"epochs": 10, **settings})
    return [rate_at(step, phase, steps_per_epoch=STEPS) for step in range(10 * STEPS + 1)]


@pytest.mark.parametrize("warmup_epochs", [0, 0.5, 2])
def test_cosine_with_warm_up_is_keras_s(warmup_epochs: float) -> None:
    warmup_steps = warmup_epochs * STEPS
    warmup = {"warmup_target": 1.0, "warmup_steps": warmup_steps} if warmup_epochs else {}
    keras_s = keras.optimizers.schedules.CosineDecay(0.0 if warmup else 1.0, 10 * STEPS - warmup_steps, **warmup)
    expected = [float(keras_s(step)) for step in range(10 * STEPS + 1)]
    assert rates(schedule="cosine", warmup_epochs=warmup_epochs) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_without_a_curve_the_rate_stays_at_its_peak_after_the_warm_up(schedule: str) -> None:
    assert rates(schedule=schedule) == [1.0] * (10 * STEPS + 1)
    warmed = rates(schedule=schedule, warmup_epochs=1.5)
    assert warmed[:11] == pytest.approx([step / 10.5 for step in range(11)])
    assert warmed[11:] == [1.0] * (10 * STEPS - 10)


def test_one_cycle_rises_from_a_25th_and_falls_to_a_250_000th() -> None:
    # Keras has no one-cycle schedule; its halves are two of Keras's, the first of them backwards.
    rising = keras.optimizers.schedules.CosineDecay(1.0, 3 * STEPS, alpha=1 / 25)
    falling = keras.optimizers.schedules.CosineDecay(1.0, 7 * STEPS, alpha=1 / 25e4)
    expected = [float(rising(3 * STEPS - step)) for step in range(3 * STEPS)]
    expected += [float(falling(step)) for step in range(7 * STEPS + 1)]
    assert rates(schedule="one_cycle") == pytest.approx(expected, abs=1e-6)
    assert max(expected) == rates(schedule="one_cycle")[3 * STEPS] == 1


@given(losses=LOSSES, epochs=st.integers(1, 5))
def test_a_phase_ends_when_keras_s_early_stopping_ends_it(losses: list[float], epochs: int) -> None:
    callback = keras.callbacks.EarlyStopping("val_loss", mode="min", patience=epochs)
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    patience = Patience(epochs)
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        assert patience.is_over(loss) is callback.model.stop_training
        if callback.model.stop_training:
            break


@given(losses=LOSSES, epochs=st.integers(1, 5))
def test_the_rate_is_cut_when_keras_s_plateau_cuts_it(losses: list[float], epochs: int) -> None:
    callback = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=epochs)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1.0)))
    callback.on_train_begin()
    patience, rate = Patience(epochs, least_gain=1e-4), 1.0
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if patience.is_over(loss):
            rate *= 0.5
        assert callback.model.optimizer.learning_rate == rate
