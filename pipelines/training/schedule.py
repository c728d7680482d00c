"""What decides, epoch by epoch, whether the rate is cut and when a phase ends: plain numbers, so that they can be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
