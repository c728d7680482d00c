"""The order: each epoch a permutation, no two alike, any place reachable at once."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.order import shuffled_positions


def order(examples: int, *, seed: int, epoch: int) -> list[int]:
    positions = tf.range(examples, dtype=tf.int64)
    return [int(n) for n in shuffled_positions(positions, seed=seed, epoch=tf.constant(epoch, tf.int64), examples=examples)]


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_each_epoch_is_a_permutation(examples: int, seed: int, epoch: int) -> None:
    assert sorted(order(examples, seed=seed, epoch=epoch)) == list(range(examples))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(order(100, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(10)}
    assert len(orders) == 30


def test_any_stretch_can_be_computed_alone_and_in_a_graph() -> None:
    whole = order(1000, seed=7, epoch=3)

    @tf.function
    def stretch(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        return shuffled_positions(tf.range(start, stop), seed=7, epoch=tf.constant(3, tf.int64), examples=1000)

    part = stretch(tf.constant(500, tf.int64), tf.constant(532, tf.int64))
    assert [int(n) for n in part] == whole[500:532]


def test_every_example_is_equally_likely_to_come_first() -> None:
    first = [order(4, seed=1, epoch=epoch)[0] for epoch in range(2000)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 2000, 0.25, atol=0.04)
