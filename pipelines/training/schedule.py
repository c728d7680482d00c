"""The learning rate of each step, and what decides when it is cut and when a phase ends: plain numbers that can be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.config import PhaseConfig

# Of the one-cycle schedule, as PyTorch's OneCycleLR: where its peak is, and the peak over its first and over its last rate.
_RISING_SHARE, _PEAK_OVER_FIRST, _PEAK_OVER_LAST = 0.3, 25.0, 25e4


def rate_at(step: int, settings: PhaseConfig, *, steps_per_epoch: int) -> float:
    """The rate of a step as a share of the phase's highest, in [0, 1]: a pure function, so that a resume is exact.

    Rises evenly from 0 in the warm-up; then `cosine` falls along half a cosine to 0 at the phase's end, both as Keras's
    CosineDecay. `one_cycle` rises and falls along half cosines. `plateau` and `constant` stay at 1: plateaus cut the peak.

    Args:
        step: of the phase, from 0.
        settings: of the phase.
        steps_per_epoch: at least 1.
    """
    total, warmup = settings.epochs * steps_per_epoch, settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return step / warmup
    if settings.schedule == "cosine":
        return _half_cosine(1, 0, (step - warmup) / (total - warmup))
    if settings.schedule == "one_cycle":
        rising = _RISING_SHARE * total
        if step < rising:
            return _half_cosine(1 / _PEAK_OVER_FIRST, 1, step / rising)
        return _half_cosine(1, 1 / _PEAK_OVER_LAST, (step - rising) / (total - rising))
    return 1.0


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


@dataclass
class Patience:
    """Counts epochs without a better validation loss.

    Attributes:
        epochs: how many are borne.
        least_gain: what a better loss must be better by, in nats.
        best: the lowest loss so far.
        waited: epochs since then.
    """

    epochs: int
    least_gain: float = 0.0
    best: float = math.inf
    waited: int = 0

    def is_over(self, loss: float) -> bool:
        """Takes in an epoch's loss; True when patience has run out, and then it starts to count anew."""
        if loss < self.best - self.least_gain:
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self.epochs:
            return False
        self.waited = 0
        return True
