"""The order of examples as a pure function of seed, epoch and position, in constant time, with no shuffle buffer.

All functions of tensors run in graph mode and eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.by_class import group_by_class

# Takes positions of an epoch, int64 [n], and the epoch, an int64 scalar from 0. Gives the examples there, int64 [n], and
# a number, int64 [n], that tells showings of one example within an epoch apart: random changes of an image are keyed by
# it too, so that an image that is shown twice in an epoch is changed in two ways. 0 where each is shown once.
Order = Callable[[Any, Any], tuple[Any, Any]]

# 8 are enough for 200,000 examples, not for a million. Few examples are found by walking through 65,536 numbers, so that each
# round costs balanced sampling of small classes up to a millisecond a batch (decision 10).
_ROUNDS, _FEWER_ROUNDS, _FEW = 16, 8, 65_536


@dataclass(frozen=True)
class Worker:
    """One of several processes that share each epoch: it takes every `workers`-th position, from `number` on.

    Batch k of all workers together is what one process would see as batch k of `workers` times the size.

    Attributes:
        number: of this worker, from 0.
        workers: how many there are.

    Raises:
        ValueError: there is no such worker.
    """

    number: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.workers:
            raise ValueError(f"`number` must be at least 0 and below `workers` ({self.workers}); received {self.number}")

    def share(self, examples: int) -> int:
        """How many positions of an epoch are this worker's; workers differ by one at most."""
        return len(range(self.number, examples, self.workers))

    def positions(self, own: Any) -> Any:
        """The positions in the epoch, int64 [n], of this worker's own positions, int64 [n], counted from 0."""
        return own * self.workers + self.number


def make_order(labels: NDArray[np.int64], *, sampling: Literal["shuffle", "balanced"], seed: int) -> Order:
    """The order in which examples are shown, as many in each epoch as there are.

    Args:
        labels: int64 [n], of each example.
        sampling: `shuffle` shows each example once per epoch, `balanced` each class equally often.
        seed: the recipe's.
    """
    if sampling == "balanced":
        return _balanced_order(labels, seed=seed)

    def order(positions: Any, epoch: Any) -> tuple[Any, Any]:
        chosen = shuffled_positions(positions, seed=seed, epoch=epoch, examples=len(labels))
        return chosen, tf.zeros_like(chosen)

    return order


def shuffled_positions(positions: Any, *, seed: int, epoch: Any, examples: int) -> Any:
    """Maps positions of an epoch to examples by a permutation that depends on nothing but (seed, epoch).

    Args:
        positions: int64 tensor [n], each in [0, examples).
        seed: the recipe's.
        epoch: int64 scalar, from 0.
        examples: how many there are.

    Returns:
        int64 tensor [n] of example numbers; over a whole epoch each comes once.
    """
    return _permute(positions, _key(seed, epoch), examples)


def _balanced_order(labels: NDArray[np.int64], *, seed: int) -> Order:
    """Each class equally often in an epoch, up to one, and each image of a class equally often over all epochs, up to one.

    Classes take turns through all epochs, and within an epoch the turns are shuffled. At its turns a class goes through a
    permutation of its images, then through another, without regard to where epochs end: an image that an epoch had no
    turn for comes before any is shown again.
    """
    grouped = group_by_class(labels)
    examples, classes = len(labels), len(grouped.sizes)
    permutation_rounds = _FEWER_ROUNDS if grouped.sizes.max() <= _FEW else _ROUNDS
    table, starts, sizes = (tf.constant(column, tf.int64) for column in (grouped.examples, grouped.starts, grouped.sizes))

    def order(positions: Any, epoch: Any) -> tuple[Any, Any]:
        before = tf.cast(epoch, tf.int64) * examples
        draw = before + shuffled_positions(positions, seed=seed, epoch=epoch, examples=examples)
        label, turn = draw % classes, draw // classes
        size, first_turn = tf.gather(sizes, label), (before - label + classes - 1) // classes
        rounds, place = turn // size, turn % size
        within = _permute(place, _key(seed, label, rounds), size, rounds=permutation_rounds)
        chosen = tf.gather(table, tf.gather(starts, label) + within)
        return chosen, rounds - first_turn // size

    return order


def _permute(positions: Any, key: Any, sizes: Any, *, rounds: int = _ROUNDS) -> Any:
    """Where positions, int64 [n], are sent by the permutation of so many numbers, a scalar or [n], with a key of `_key`.

    The op below `tf.random.experimental.index_shuffle`, whose 4 rounds are too few: of 50,000 examples in the order of their
    classes a batch had half the variance of a random one, and neighbours met again from epoch to epoch (decision 10).
    """
    largest = tf.cast(tf.convert_to_tensor(sizes) - 1, tf.uint32)
    sent = tf.raw_ops.RandomIndexShuffle(index=tf.cast(positions, tf.uint32), seed=key, max_index=largest, rounds=rounds)
    return tf.cast(sent, tf.int64)


def _key(*numbers: Any) -> Any:
    """Mixes integers, scalars or [n], into keys uint32 [..., 3] that share nothing where one of the integers differs.

    By SplitMix64 (Steele, Lea and Flood, 2014). `RandomIndexShuffle` looks at 8 bits of each word of a key for up to 65,536
    examples: with bare numbers epoch 256 would be epoch 0 again.
    """
    state = tf.constant(0, tf.uint64)
    for number in numbers:
        state = _mix(tf.bitwise.bitwise_xor(state, tf.cast(number, tf.uint64)))
    return tf.cast(
        tf.stack([state, tf.bitwise.right_shift(state, tf.constant(32, tf.uint64)), _mix(state)], axis=-1), tf.uint32
    )


def _mix(state: Any) -> Any:
    """The next number of SplitMix64, uint64."""
    state += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, tf.constant(shift, tf.uint64)))
        state *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, tf.constant(31, tf.uint64)))
