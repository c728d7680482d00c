"""tf.data over the image store: whole batches gathered, augmented and prefetched, in an order that needs no shuffle buffer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.batch import TrainingBatches
from pipelines.config import AugmentConfig
from pipelines.data.order import shuffled_positions
from pipelines.store.images import RowReader

EVALUATION_BATCH_SIZE = 32  # on two cores 64 is a third slower: its activations no longer fit the cache


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
    start_epoch: int = 0,
) -> Any:
    """An endless dataset of augmented batches, epoch after epoch with no gap in between.

    Yields (images uint8 [B, S, S, 3], labels int64 [B]); labels are float32 [B, num_classes] where images are mixed. Batch k
    of epoch e is a pure function of (seed, e, k): the order is a permutation of the whole split, and each image is augmented by
    numbers drawn from (seed, e, its id).
    """
    examples, steps = len(reader), steps_per_epoch(len(reader), batch_size)
    shape = reader.gather(np.zeros(1, np.int64)).shape[1:]
    batches = TrainingBatches(reader.gather, image_ids, labels, num_classes, config=augment, seed=seed)

    def load_step(step: Any) -> tuple[Any, Any]:
        epoch, batch = step // steps, step % steps
        positions = tf.range(batch * batch_size, tf.minimum((batch + 1) * batch_size, examples))
        chosen = shuffled_positions(positions, seed=seed, epoch=epoch, examples=examples)
        types = (tf.uint8, batches.label_dtype)
        images, targets = tf.numpy_function(batches.load, [chosen, epoch], types, stateful=False)
        images.set_shape([None, *shape])
        targets.set_shape(batches.label_shape)
        return images, targets

    steps_from = tf.data.Dataset.range(start_epoch * steps, np.iinfo(np.int64).max)
    return steps_from.map(load_step, num_parallel_calls=2, deterministic=True).prefetch(4)


def build_plain_dataset(reader: RowReader, *, batch_size: int) -> Any:
    """One pass over the images in their own order, as batches uint8 [B, S, S, 3]: for validation and prediction."""
    shape = reader.gather(np.zeros(1, np.int64)).shape[1:]

    def load_batch(start: Any) -> Any:
        chosen = tf.range(start, tf.minimum(start + batch_size, len(reader)))
        images = tf.numpy_function(reader.gather, [chosen], tf.uint8, stateful=False)
        images.set_shape([None, *shape])
        return images

    starts = tf.data.Dataset.range(0, len(reader), batch_size)
    return starts.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(2)
