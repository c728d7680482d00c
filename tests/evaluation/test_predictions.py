"""Predictions of stored images: what is told on the way, and what ends them."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import RunError
from pipelines.evaluation.predictions import predict_probabilities

IMAGES = 70


class Reader:
    """Images whose pixels are their own numbers."""

    shape, dtype = (2, 2, 3), np.dtype(np.uint8)

    def __len__(self) -> int:
        return IMAGES

    def gather(self, examples: Any) -> Any:
        return np.tile(examples.astype(np.uint8)[:, None, None, None], (1, *self.shape))


class Damaged(Reader):
    def gather(self, examples: Any) -> Any:
        raise RunError("x.arrow is damaged; remove it and run again")


class Model:
    """Gives the first pixel."""

    def __call__(self, images: Any, *, training: bool) -> Any:
        assert not training
        return images[:, 0, 0, :1]


def test_each_image_is_predicted_in_its_order_and_counted() -> None:
    counted: list[int] = []
    probabilities = predict_probabilities(Model(), Reader(), report=counted.append)  # type: ignore[arg-type]
    assert probabilities[:, 0].tolist() == list(range(IMAGES))
    assert counted == [32, 64, 70]


def test_an_interruption_waits_for_the_end_of_a_batch() -> None:
    class Interrupted(Model):
        def __call__(self, images: Any, *, training: bool) -> Any:
            def interrupt(values: Any) -> Any:
                os.kill(os.getpid(), signal.SIGINT)
                return values

            return tf.numpy_function(interrupt, [super().__call__(images, training=training)], tf.float32)

    counted: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        predict_probabilities(Interrupted(), Reader(), report=counted.append)  # type: ignore[arg-type]
    assert counted == [32]


def test_a_damaged_row_is_said_in_our_words() -> None:
    with pytest.raises(RunError, match=r"^x\.arrow is damaged; remove it and run again$"):
        predict_probabilities(Model(), Damaged())  # type: ignore[arg-type]


def test_a_smaller_last_batch_is_no_second_trace() -> None:
    class Counting(Model):
        traces = 0

        def __call__(self, images: Any, *, training: bool) -> Any:
            self.traces += 1
            return super().__call__(images, training=training)

    model = Counting()
    predict_probabilities(model, Reader())  # type: ignore[arg-type]
    assert model.traces == 1
