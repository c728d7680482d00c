"""Phases that are interrupted save what they have and go on from there."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.progress import Progress
from pipelines.training import loop
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.loop import PhaseRun
from pipelines.training.trainer import Trainer
from tests.training.test_loop import STEPS, build, phase


@pytest.mark.parametrize("stop_at", [2, 3])
def test_an_interruption_while_the_averages_are_judged_saves_the_weights_themselves(tmp_path: Path, stop_at: int) -> None:
    whole, checkpoints = phase(ema=0.5), Checkpoints(tmp_path / "checkpoints", every_steps=1000)
    whole.run()
    original, calls = Trainer.validate, []

    def interrupted(*arguments: Any) -> Any:
        result = original(*arguments)
        calls.append(result)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return result

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "validate", interrupted)
        phase(ema=0.5, checkpoints=checkpoints).run()
    resumed = phase(ema=0.5, checkpoints=checkpoints)
    resumed.run()
    assert [row | {"seconds": 0} for row in resumed.rows] == [row | {"seconds": 0} for row in whole.rows]
    for mine, other in zip(resumed.best.weights, whole.best.weights, strict=True):
        np.testing.assert_array_equal(mine, other)


class Terminated(BaseException):
    """As Prefect's TerminationSignal, which is no Exception."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 6])
def test_an_interrupted_phase_goes_on_at_its_step(
    tmp_path: Path, stop_at: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 0)
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


def test_an_interrupted_phase_does_not_save_a_state_that_is_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, original = Checkpoints(tmp_path / "checkpoints", every_steps=1), Trainer.step

    def overflow(trainer: Trainer, *batch: Any) -> float:
        loss = original(trainer, *batch)
        if trainer.steps_done == 2:
            moments = trainer.optimizer.variables[-1]
            moments.assign(tf.fill(moments.shape, np.inf))
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(Trainer, "step", overflow)
    with pytest.raises(KeyboardInterrupt):
        phase(checkpoints=checkpoints).run()
    saved = checkpoints.latest(say=pytest.fail)
    assert saved is not None
    assert saved.step == 1


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
