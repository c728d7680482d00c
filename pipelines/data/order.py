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
    key = tf.stack([tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32)])
    shuffled = tf.random.experimental.index_shuffle(tf.cast(positions, tf.uint32), key, tf.constant(examples - 1, tf.uint32))
    return tf.cast(shuffled, tf.int64)


def _balanced_order(labels: NDArray[np.int64], *, seed: int) -> Order:
    """Each class equally often in an epoch, up to one, and each image of a class equally often over all epochs, up to one.

    Classes take turns through all epochs, and within an epoch the turns are shuffled. At its turns a class goes through a
    permutation of its images, then through another, without regard to where epochs end: an image that an epoch had no
    turn for comes before any is shown again.
    """
    grouped = group_by_class(labels)
    examples, classes = len(labels), len(grouped.sizes)
    table, starts, sizes = (tf.constant(column, tf.int64) for column in (grouped.examples, grouped.starts, grouped.sizes))

    def order(positions: Any, epoch: Any) -> tuple[Any, Any]:
        before = tf.cast(epoch, tf.int64) * examples
        draw = before + shuffled_positions(positions, seed=seed, epoch=epoch, examples=examples)
        label, turn = draw % classes, draw // classes
        size, first_turn = tf.gather(sizes, label), (before - label + classes - 1) // classes
        rounds, place = turn // size, turn % size
        key = tf.cast(tf.stack([label, tf.fill(tf.shape(label), tf.constant(seed, tf.int64)), rounds], axis=1), tf.uint32)
        # `index_shuffle` can't take one key per element (TensorFlow 2.21 pads the wrong axis); the op below it can.
        within = tf.raw_ops.RandomIndexShuffle(
            index=tf.cast(place, tf.uint32), seed=key, max_index=tf.cast(size - 1, tf.uint32), rounds=4
        )
        chosen = tf.gather(table, tf.gather(starts, label) + tf.cast(within, tf.int64))
        return chosen, rounds - first_turn // size

    return order
