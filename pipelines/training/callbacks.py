"""What watches an epoch: the best weights over all phases, the history, progress, and a loss that is no number any more."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import keras

from pipelines.errors import RunError
from pipelines.progress import Progress, Report

_SECONDS_BETWEEN_REPORTS = 0.2


@dataclass
class BestWeights:
    """The best weights seen so far, in whichever phase: highest validation accuracy, then lowest loss."""

    phase: str = ""
    epoch: int = 0
    val_accuracy: float = -math.inf
    val_loss: float = math.inf
    weights: list[Any] = field(default_factory=list)

    def is_beaten_by(self, *, val_accuracy: float, val_loss: float) -> bool:
        """Whether these figures are better than those of the weights that are kept."""
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


class KeepBest(keras.callbacks.Callback):
    """Takes a copy of the weights at the end of each epoch that beats all before it."""

    def __init__(self, best: BestWeights, *, phase: str) -> None:
        super().__init__()
        self._best = best
        self._phase = phase

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Compares the epoch's validation figures."""
        figures = {"val_accuracy": float(logs["val_accuracy"]), "val_loss": float(logs["val_loss"])}
        if self._best.is_beaten_by(**figures):
            self._best.phase, self._best.epoch = self._phase, epoch + 1
            self._best.val_accuracy, self._best.val_loss = figures["val_accuracy"], figures["val_loss"]
            self._best.weights = self.model.get_weights()


class StopOnDivergence(keras.callbacks.Callback):
    """Ends the run with a clear error at the first batch or validation whose loss is not a finite number."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self._phase = phase

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Checks the running loss; one batch that is not finite makes it so."""
        self._check(logs["loss"], f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Checks the validation loss."""
        self._check(logs["val_loss"], f"the validation after epoch {epoch + 1}")

    def _check(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise RunError(f"the loss became {loss} at {where} of phase `{self._phase}`; lower `{self._phase}.learning_rate`")


class EpochLog(keras.callbacks.Callback):
    """One row of history per epoch, and progress while it runs.

    Attributes:
        rows: phase, epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
    """

    def __init__(self, *, phase: str, epochs: int, report: Report) -> None:
        super().__init__()
        self.phase = phase
        self.rows: list[dict[str, Any]] = []
        self.images_per_epoch = 0
        self._epochs = epochs
        self._report = report
        self._epoch = 0
        self._epoch_started = self._last_report = 0.0
        self._learning_rate = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 (Keras's signature)
        """Starts the clock; the rate is the one that this epoch trains at."""
        self._epoch = epoch
        self._epoch_started = time.monotonic()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Reports a few times a second."""
        now = time.monotonic()
        if now - self._last_report < _SECONDS_BETWEEN_REPORTS:
            return
        self._last_report = now
        share = (batch + 1) / self.params["steps"]
        rate = share * self.images_per_epoch / (now - self._epoch_started)
        done = self._epoch * self.images_per_epoch + round(share * self.images_per_epoch)
        detail = f"epoch {self._epoch + 1}/{self._epochs}  loss {logs['loss']:.3f}"
        self._report(Progress(done, self._total_images, "images", detail, rate))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Notes the epoch and reports it."""
        seconds = time.monotonic() - self._epoch_started
        figures = {name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        self.rows.append(
            {
                "phase": self.phase,
                "epoch": epoch + 1,
                **figures,
                "learning_rate": self._learning_rate,
                "seconds": seconds,
            }
        )
        detail = f"epoch {epoch + 1}/{self._epochs}  loss {figures['loss']:.3f}  val_accuracy {figures['val_accuracy']:.4f}"
        done, rate = (epoch + 1) * self.images_per_epoch, self.images_per_epoch / seconds
        self._report(Progress(done, self._total_images, "images", detail, rate, milestone=True))

    @property
    def _total_images(self) -> int:
        return self._epochs * self.images_per_epoch
