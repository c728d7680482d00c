"""One phase, step by step: it can be killed at any moment and goes on from its last checkpoint as if nothing had happened."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import keras
import numpy as np
from numpy.typing import NDArray

from pipelines.config import PhaseConfig
from pipelines.data.batches import own_errors
from pipelines.errors import RunError
from pipelines.progress import SECONDS_BETWEEN_REPORTS, Progress, Report
from pipelines.signals import put_off_signals
from pipelines.training.checkpoint import Checkpoint, Checkpoints
from pipelines.training.schedule import Patience, rate_at
from pipelines.training.trainer import Learner, Trainer

logger = logging.getLogger(__name__)

_LEAST_GAIN_ON_PLATEAU = 1e-4  # nats; the default of Keras's ReduceLROnPlateau


@dataclass(frozen=True)
class PhaseData:
    """What a phase trains and is judged on.

    Attributes:
        batches: the endless training batches from a step of this phase on, (images, labels).
        validation: batches of (images, labels int64 [B]).
        steps_per_epoch: batches of one epoch.
        images_per_epoch: images of one epoch.
        class_weights: float32 [classes], of the training loss, or None.
        describe_batch: tells of the images of the batch of a step, in what goes into JSON, or None.
    """

    batches: Callable[[int], Any]
    validation: Any
    steps_per_epoch: int
    images_per_epoch: int
    class_weights: NDArray[np.float32] | None = None
    describe_batch: Callable[[int], list[dict[str, Any]]] | None = None


@dataclass
class BestWeights:
    """The best weights seen so far, in whichever phase: highest validation accuracy, then lowest loss."""

    phase: str = ""
    epoch: int = 0
    val_accuracy: float = -math.inf
    val_loss: float = math.inf
    weights: list[NDArray[Any]] = field(default_factory=list)

    def is_beaten_by(self, *, val_accuracy: float, val_loss: float) -> bool:
        """Whether these figures are better than those of the weights that are kept."""
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


class PhaseRun:
    """One phase under way.

    Args:
        learner: what is trained; shares its weights with the classifier.
        classifier: what is kept: the whole model.
        data: to train and judge on.
        name: of the phase.
        settings: its rates, optimizer, loss, epochs and patience.
        best: the weights to beat.
        checkpoints: where it saves itself, or None.
        report: hears of the progress.

    Attributes:
        settings: as given.
        rows: one per epoch: phase, epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
        best: the best weights so far.
    """

    def __init__(
        self,
        learner: Learner,
        classifier: keras.Model,
        data: PhaseData,
        *,
        name: str,
        settings: PhaseConfig,
        best: BestWeights,
        checkpoints: Checkpoints | None,
        report: Report,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.best = best
        self._classifier = classifier
        self._data = data
        self._name = name
        self.settings = settings
        self._checkpoints = checkpoints
        self._report = report
        self._rate_patience = Patience(settings.plateau_patience, least_gain=_LEAST_GAIN_ON_PLATEAU)
        self._phase_patience = Patience(settings.patience)
        self._ended = settings.epochs == 0
        self._epoch_seconds = 0.0  # of the epoch under way, in earlier processes too
        self._peak_rate = _as_stored(settings.learning_rate)  # cut on plateaus
        element_spec = data.batches(0).element_spec
        self._trainer = Trainer(learner, settings, element_spec=element_spec, class_weights=data.class_weights)

    def run(self) -> None:
        """Trains to the phase's end, from its last checkpoint where there is one, and leaves the best weights in the model.

        Raises:
            RunError: the loss or a weight is no finite number any more, a row can't be read, or a checkpoint can't be written.
        """
        self._resume()
        batches = None
        with own_errors(), put_off_signals() as let_signals_through:
            while not self._ended:
                batches = batches or iter(self._data.batches(self._trainer.steps_done))
                self._run_epoch(batches, let_signals_through)
        self._classifier.set_weights(self.best.weights)

    def _run_epoch(self, batches: Any, let_signals_through: Callable[[], None]) -> None:
        """The rest of the epoch that the next step belongs to; between two batches it may be interrupted."""
        epoch = len(self.rows)
        first = self._trainer.steps_done - epoch * self._data.steps_per_epoch
        if first == 0:
            self._trainer.start_epoch()
            self._epoch_seconds = 0.0
        started, earlier = time.monotonic(), self._epoch_seconds
        try:
            for _ in self._run_steps(batches, epoch=epoch, first=first, started=started):
                let_signals_through()
            with self._trainer.averaged_weights():
                val_loss, val_accuracy = self._trainer.validate(self._data.validation, let_signals_through)
                self._check_loss(val_loss, f"the validation after epoch {epoch + 1}")
                self._keep_if_best(epoch + 1, val_accuracy=val_accuracy, val_loss=val_loss)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, and what Prefect makes of SIGTERM: somebody wants to go on later
                self._epoch_seconds = earlier + time.monotonic() - started
                self._save(None)
            raise
        seconds = time.monotonic() - started
        loss, accuracy = self._trainer.running_means()
        row = {"phase": self._name, "epoch": epoch + 1, "loss": loss, "accuracy": accuracy, "val_loss": val_loss}
        row |= {"val_accuracy": val_accuracy, "learning_rate": self._trainer.learning_rate, "seconds": earlier + seconds}
        self.rows.append(row)
        self._judge_epoch(epoch + 1, val_loss=val_loss)
        self._save(f"the end of epoch {epoch + 1}")
        self._report_epoch(epoch, (1 - first / self._data.steps_per_epoch) * self._data.images_per_epoch / seconds)

    def _run_steps(self, batches: Any, *, epoch: int, first: int, started: float) -> Iterator[None]:
        """Makes the steps of an epoch from `first` on, and pauses after each."""
        steps, every = self._data.steps_per_epoch, self._checkpoints.every_steps if self._checkpoints else 0
        earlier, reported, built = self._epoch_seconds, 0.0, started
        for batch in range(first, steps):
            share = rate_at(self._trainer.steps_done, self.settings, steps_per_epoch=steps)
            self._trainer.learning_rate = self._peak_rate * share
            loss = self._trainer.step(*next(batches))
            where = f"step {batch + 1} of epoch {epoch + 1}"
            self._check_loss(loss, where)
            if not self._trainer.weights_finite:
                self._fail(f"weights became NaN or far too large at {where}")
            now = time.monotonic()
            if batch == first:
                built = now  # the graph is built in the first step of a process, which would pass for a slow one
            if now - reported >= SECONDS_BETWEEN_REPORTS:
                reported = now
                images = self._data.images_per_epoch * (batch + 1) / steps
                rate = self._data.images_per_epoch * (batch - first) / steps / (now - built) if now > built else None
                detail = f"epoch {epoch + 1}/{self.settings.epochs}  loss {self._trainer.running_means()[0]:.3f}"
                done = round(epoch * self._data.images_per_epoch + images)
                self._report(Progress(done, self._total_images, "images", detail, rate))
            if every and self._trainer.steps_done % every == 0 and batch + 1 < steps:
                self._epoch_seconds = earlier + time.monotonic() - started
                self._save(where)
            yield

    def _keep_if_best(self, epoch: int, *, val_accuracy: float, val_loss: float) -> None:
        if self.best.is_beaten_by(val_accuracy=val_accuracy, val_loss=val_loss):
            self.best.phase, self.best.epoch = self._name, epoch
            self.best.val_accuracy, self.best.val_loss = val_accuracy, val_loss
            self.best.weights = self._classifier.get_weights()

    def _judge_epoch(self, epoch: int, *, val_loss: float) -> None:
        """Cuts the rate on a plateau, and ends the phase when patience is over."""
        if self.settings.schedule == "plateau" and self._rate_patience.is_over(val_loss):
            self._peak_rate = _as_stored(self._peak_rate * self.settings.plateau_factor)
        self._ended = self._phase_patience.is_over(val_loss) or epoch == self.settings.epochs

    def _check_loss(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            self._fail(f"the loss became {loss} at {where}")

    def _fail(self, what: str) -> NoReturn:
        message = f"{what} of phase `{self._name}`; lower `{self._name}.learning_rate`"
        if self._trainer.in_float16:
            message += ", or use `resources.precision: float32`, in which larger numbers fit"
        if self._checkpoints is not None and self._data.describe_batch is not None:
            # Of the step before too, since it made the weights that this one had.
            last_steps = range(self._trainer.steps_done)[-2:]
            batches = [{"step": step, "images": self._data.describe_batch(step)} for step in last_steps]
            path = self._checkpoints.write_failure({"phase": self._name, "what": what, "batches": batches})
            message += f"; the images of the last two steps are listed in {path}"
        raise RunError(message)

    def _report_epoch(self, epoch: int, rate: float) -> None:
        row = self.rows[-1]
        figures = f"loss {row['loss']:.3f}  val_accuracy {row['val_accuracy']:.4f}"
        detail = f"epoch {epoch + 1}/{self.settings.epochs}  {figures}"
        done = (epoch + 1) * self._data.images_per_epoch
        self._report(Progress(done, self._total_images, "images", detail, rate, milestone=True))

    @property
    def _total_images(self) -> int:
        return self.settings.epochs * self._data.images_per_epoch

    def _save(self, where: str | None) -> None:
        """Writes a checkpoint.

        Args:
            where: the phase is, for the error that ends it if its state is not of finite numbers; None where it is interrupted:
                then the last good checkpoint stays, and whoever goes on from that will hear of it.
        """
        if self._checkpoints is None:
            return
        state = self._trainer.values()
        if not all(np.isfinite(array).all() for array in state):
            if where is None:
                return
            self._fail(f"the state of training became infinite or NaN by {where}")
        notes = {
            "phase": self._name,
            "rows": self.rows,
            "best": {name: getattr(self.best, name) for name in ("phase", "epoch", "val_accuracy", "val_loss")},
            "rate_patience": asdict(self._rate_patience),
            "phase_patience": asdict(self._phase_patience),
            "peak_rate": self._peak_rate,
            "ended": self._ended,
            "epoch_seconds": self._epoch_seconds,
        }
        arrays = {"state": state, "best": [np.asarray(array) for array in self.best.weights]}
        self._checkpoints.save(Checkpoint(self._trainer.steps_done, notes, arrays))

    def _resume(self) -> None:
        checkpoint = self._checkpoints.latest(say=self._say) if self._checkpoints else None
        if self._checkpoints is None or checkpoint is None:
            return
        if not self._trainer.restore(checkpoint.arrays["state"]):
            self._say("its checkpoint is of another model and is removed; the phase starts anew")
            self._checkpoints.clear()
            return
        notes = checkpoint.notes
        self.rows = notes["rows"]
        self.best = BestWeights(**notes["best"], weights=list(checkpoint.arrays["best"]))
        self._rate_patience, self._phase_patience = Patience(**notes["rate_patience"]), Patience(**notes["phase_patience"])
        self._peak_rate, self._ended, self._epoch_seconds = notes["peak_rate"], notes["ended"], notes["epoch_seconds"]
        steps = self._data.steps_per_epoch * self.settings.epochs
        self._say(f"goes on from its checkpoint at step {checkpoint.step:,} of {steps:,}")

    def _say(self, line: str) -> None:
        logger.info("phase %s: %s", self._name, line)
        done = round(self._trainer.steps_done / self._data.steps_per_epoch * self._data.images_per_epoch)
        self._report(Progress(done, self._total_images, "images", line, milestone=True))


def _as_stored(rate: float) -> float:
    """A rate as the optimizer keeps it, in float32: cuts go on from that, as those of Keras's ReduceLROnPlateau."""
    return float(np.float32(rate))
