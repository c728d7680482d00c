"""The order of examples as a pure function: position i of epoch e under seed s, in constant time, with no shuffle buffer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def shuffled_positions(positions: Any, *, seed: int, epoch: Any, examples: int) -> Any:
    """Maps positions of an epoch to examples by a permutation that depends on nothing but (seed, epoch).

    Args:
        positions: int64 tensor [n], each in [0, examples).
        seed: the recipe's.
        epoch: int64 scalar, from 0.
        examples: how many there are.

    Returns:
        int64 tensor [n] of example numbers; over a whole epoch each comes once. Runs in graph mode and eagerly.
    """
    key = tf.stack([tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32)])
    shuffled = tf.random.experimental.index_shuffle(tf.cast(positions, tf.uint32), key, tf.constant(examples - 1, tf.uint32))
    return tf.cast(shuffled, tf.int64)
