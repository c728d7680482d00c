"""tf.data over the image store: whole batches gathered, augmented and prefetched, in an order that needs no shuffle buffer."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.batch import TrainingBatches
from pipelines.config import AugmentConfig
from pipelines.data.order import Worker, make_order
from pipelines.errors import RunError
from pipelines.store.activations import ViewReader
from pipelines.store.rows import RowReader

EVALUATION_BATCH_SIZE = 32  # on two cores 64 is a third slower: its activations no longer fit the cache
# Batches under way at once: one per core, since copying, decoding and warping let go of the interpreter's lock.
_PARALLEL_BATCHES = max(2, os.cpu_count() or 1)
_ALONE = Worker()


# How TensorFlow words an exception of a Python function that it called.
_RUN_ERROR = re.compile(r"RunError: (.*?)\nTraceback \(most recent call last\)", re.DOTALL)


@contextmanager
def own_errors() -> Iterator[None]:
    """Lets a `RunError` out of the data sets of this module, which comes as the text of an error of TensorFlow's.

    Raises:
        RunError: in place of that.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if found := _RUN_ERROR.search(str(error.message)):
            raise RunError(found[1]) from error
        raise


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
        sampling: as in `make_order`; partners to mix images with are drawn likewise.
        start_step: the first step, counted over all epochs; starting late costs nothing.
        worker: which part of each epoch to give, for several processes that share it.

    Raises:
        ValueError: there are fewer examples than workers.
    """
    batches = TrainingBatches(reader.gather, image_ids, labels, num_classes, config=augment, seed=seed, sampling=sampling)
    spec = (tf.TensorSpec([None, *reader.shape], tf.uint8), tf.TensorSpec(batches.label_shape, batches.label_dtype))
    return _in_order(batches.load, spec, labels, batch_size, sampling=sampling, seed=seed, start_step=start_step, worker=worker)


def build_view_dataset(
    reader: ViewReader,
    labels: NDArray[np.int64],
    *,
    image_ids: NDArray[np.uint64],
    batch_size: int,
    seed: int,
    sampling: Literal["shuffle", "balanced"] = "shuffle",
    start_step: int = 0,
) -> Any:
    """As `build_train_dataset`, of stored activations: yields (activations [B, ...], labels int64 [B]).

    The view that an image is shown in is a pure function of (epoch, its id).
    """

    def load(examples: NDArray[np.int64], epoch: int, showings: NDArray[np.int64]) -> tuple[Any, Any]:
        views = reader.shown_views(image_ids[examples], epoch, showings)
        return reader.gather(examples, views), labels[examples]

    spec = (tf.TensorSpec([None, *reader.shape], reader.dtype), tf.TensorSpec([None], tf.int64))
    return _in_order(load, spec, labels, batch_size, sampling=sampling, seed=seed, start_step=start_step, worker=_ALONE)


def _in_order(
    load: Callable[..., tuple[Any, Any]],
    spec: tuple[Any, Any],
    labels: NDArray[np.int64],
    batch_size: int,
    *,
    sampling: Literal["shuffle", "balanced"],
    seed: int,
    start_step: int,
    worker: Worker,
) -> Any:
    """Batches that `load` makes of (examples int64 [B], epoch, showings int64 [B]), in the order of each epoch."""
    members = _make_members(labels, batch_size=batch_size, sampling=sampling, seed=seed, worker=worker)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load_step(step: Any) -> tuple[Any, Any]:
        chosen, epoch, showings = members(step)
        types = [part.dtype for part in spec]
        inputs, targets = tf.numpy_function(load, [chosen, epoch, showings], types, stateful=False)
        return tf.ensure_shape(inputs, spec[0].shape), tf.ensure_shape(targets, spec[1].shape)

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
    batches = TrainingBatches(_no_pixels, image_ids, labels, num_classes, config=augment, seed=seed, sampling=sampling)
    return chosen, batches.partners(chosen, int(epoch), showings)


def build_plain_dataset(reader: RowReader | ViewReader, *, batch_size: int) -> Any:
    """One pass over the rows in their own order, as batches [B, ...]: images, or activations of plain images."""

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load_batch(start: Any) -> Any:
        chosen = tf.range(start, tf.minimum(start + batch_size, len(reader)))
        rows = tf.numpy_function(reader.gather, [chosen], reader.dtype, stateful=False)
        return tf.ensure_shape(rows, [None, *reader.shape])

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
