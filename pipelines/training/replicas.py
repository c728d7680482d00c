"""Several devices for one phase: the same model on each, which learns from its share of every batch.

With TensorFlow's MirroredStrategy. What is different from one device is the order in which numbers are added up.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from pipelines.errors import InputError


@contextmanager
def mirrored_on(devices: int) -> Iterator[None]:
    """Models, optimizers and metrics that are made in this block live on so many devices, and are to be used in it.

    GPUs, or logical CPU devices where there is no GPU.

    Raises:
        InputError: this process sees fewer.
    """
    if devices == 1:
        yield
        return
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        kind = f"{len(found)} {found[0].device_type}{'s' if len(found) > 1 else ''}"
        raise InputError(f"`resources.devices` must be at most what TensorFlow sees ({kind}); received {devices}")
    with _strategy_on(tuple(device.name for device in found[:devices])).scope():
        yield


@functools.cache
def _strategy_on(names: tuple[str, ...]) -> tf.distribute.Strategy:
    # One for the process: a second one's reductions would be taken for those of the first, and fail by their shapes.
    return tf.distribute.MirroredStrategy(names)


def share_of(batch: Any) -> Any:
    """The rows of a batch that this device learns from; in graph mode, inside `Strategy.run`, in the order of the devices."""
    context = tf.distribute.get_replica_context()
    rows = tf.shape(batch)[0] // context.num_replicas_in_sync
    first = context.replica_id_in_sync_group * rows
    return batch[first : first + rows]
