"""A finished model at work: what an interruption leaves alone."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

from pipelines.inference import FinishedModel, answer
from tests.images import draw_photo, encode


class Model:
    """Is interrupted in its first batch."""

    batches = 0

    def predict_on_batch(self, images: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        self.batches += 1
        return np.full((len(images), 2), 0.5, np.float32)


def test_an_interruption_waits_for_the_end_of_a_batch() -> None:
    model, counted, photo = Model(), list[int](), encode(draw_photo(8, 8), "PNG")
    finished = FinishedModel(model, ("a", "b"), 8, "crop", 100)
    with pytest.raises(KeyboardInterrupt):
        answer(finished, [lambda: photo] * 40, report=counted.append)
    assert (model.batches, counted) == (1, [32])
