"""tf.data over the image store: whole batches gathered, augmented and prefetched, in an order that needs no shuffle buffer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.batch import TrainingBatches
from pipelines.config import AugmentConfig
from pipelines.data.order import Worker, make_order
from pipelines.store.images import RowReader

EVALUATION_BATCH_SIZE = 32  # on two cores 64 is a third slower: its activations no longer fit the cache
# Batches under way at once: one per core, since copying, decoding and warping let go of the interpreter's lock.
_PARALLEL_BATCHES = max(2, os.cpu_count() or 1)
_ALONE = Worker()


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in an epoch; the last one may be smaller."""
    return math.ceil(examples / batch_size)


def build_train_dataset(
    reader: RowReader,
    labels: NDArray[np.int64],
    *,
    image_ids: NDArray[np.uint64],
    num_classes: int,
    batch_size: int,
    augment: AugmentConfig,
    seed: int,
    sampling: Literal["shuffle", "balanced"] = "shuffle",
    start_step: int = 0,
    worker: Worker = _ALONE,
) -> Any:
    """An endless dataset of augmented batches, epoch after epoch with no gap in between.

    Yields (images uint8 [B, S, S, 3], labels int64 [B]); labels are float32 [B, num_classes] where images are mixed. The
    batch of a step is a pure function of (seed, step): the order of an epoch comes from (seed, epoch), and each image is
    augmented by numbers drawn from (seed, epoch, its id).

    Args:
        reader: of the pixels.
        labels: int64 [n], of all examples of the reader.
        image_ids: uint64 [n], see `pipelines.augment.philox.image_ids`.
        num_classes: width of soft labels.
        batch_size: of each worker.
        augment: what is changed at random; only `where: dataset` is done here.
        seed: the recipe's.
        sampling: as in `make_order`.
        start_step: the first step, counted over all epochs; starting late costs nothing.
        worker: which part of each epoch to give, for several processes that share it.

    Raises:
        ValueError: there are fewer examples than workers.
    """
    batches = TrainingBatches(reader.gather, image_ids, labels, num_classes, config=augment, seed=seed)
    members = _make_members(labels, batch_size=batch_size, sampling=sampling, seed=seed, worker=worker)

    def load_step(step: Any) -> tuple[Any, Any]:
        chosen, epoch, showings = members(step)
        types = (tf.uint8, batches.label_dtype)
        images, targets = tf.numpy_function(batches.load, [chosen, epoch, showings], types, stateful=False)
        images.set_shape([None, *reader.shape])
        targets.set_shape(batches.label_shape)
        return images, targets

    steps_from = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return steps_from.map(load_step, num_parallel_calls=_PARALLEL_BATCHES, deterministic=True).prefetch(4)


def examples_of_step(
    step: int,
    labels: NDArray[np.int64],
    *,
    image_ids: NDArray[np.uint64],
    num_classes: int,
    batch_size: int,
    augment: AugmentConfig,
    seed: int,
    sampling: Literal["shuffle", "balanced"] = "shuffle",
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The examples int64 [B] that `build_train_dataset` gives in a step, and those that they are mixed with, or None.

    No image is read. Arguments as there; `step` is counted over all epochs.
    """
    members = _make_members(labels, batch_size=batch_size, sampling=sampling, seed=seed, worker=_ALONE)
    chosen, epoch, showings = (np.asarray(each) for each in members(tf.constant(step, tf.int64)))
    batches = TrainingBatches(_no_pixels, image_ids, labels, num_classes, config=augment, seed=seed)
    return chosen, batches.partners(chosen, int(epoch), showings)


def build_plain_dataset(reader: RowReader, *, batch_size: int) -> Any:
    """One pass over the images in their own order, as batches uint8 [B, S, S, 3]: for validation and prediction."""

    def load_batch(start: Any) -> Any:
        chosen = tf.range(start, tf.minimum(start + batch_size, len(reader)))
        images = tf.numpy_function(reader.gather, [chosen], tf.uint8, stateful=False)
        images.set_shape([None, *reader.shape])
        return images

    starts = tf.data.Dataset.range(0, len(reader), batch_size)
    return starts.map(load_batch, num_parallel_calls=_PARALLEL_BATCHES, deterministic=True).prefetch(2)


def _no_pixels(examples: NDArray[np.int64]) -> NDArray[np.uint8]:
    raise NotImplementedError(f"the pixels of {examples}")


def _make_members(
    labels: NDArray[np.int64], *, batch_size: int, sampling: Literal["shuffle", "balanced"], seed: int, worker: Worker
) -> Callable[[Any], tuple[Any, Any, Any]]:
    """A function of the step, an int64 scalar, that gives its examples int64 [B], its epoch, and showings as in `Order`.

    Raises:
        ValueError: there are fewer examples than workers.
    """
    examples = worker.share(len(labels))
    if not examples:
        raise ValueError(f"`worker` must have a share of the {len(labels)} examples; received {worker}: use fewer workers")
    # Of the largest share, so that workers stay in one epoch; the last batch of a smaller share may be empty.
    steps = steps_per_epoch(Worker(0, worker.workers).share(len(labels)), batch_size)
    with tf.device("CPU:0"):  # where tf.data runs
        order = make_order(labels, sampling=sampling, seed=seed)

    def members(step: Any) -> tuple[Any, Any, Any]:
        epoch, batch = step // steps, step % steps
        own = tf.range(batch * batch_size, (batch + 1) * batch_size)
        left = tf.maximum(examples - batch * batch_size, 0)
        # The order is asked for a whole batch, since `index_shuffle` takes no empty one.
        chosen, showings = (each[:left] for each in order(worker.positions(tf.minimum(own, examples - 1)), epoch))
        return chosen, epoch, showings

    return members
