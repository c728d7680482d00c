"""Predictions of many images, and `predictions.parquet`: one row per image, with a probability column per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.data.batches import EVALUATION_BATCH_SIZE, build_plain_dataset, own_errors
from pipelines.models.folding import fold_normalization
from pipelines.signals import put_off_signals
from pipelines.store.activations import ViewReader
from pipelines.store.rows import RowReader


def write_predictions(
    path: Path, columns: Mapping[str, Sequence[Any]], probabilities: NDArray[np.float32], *, classes: Sequence[str]
) -> None:
    """Writes given columns, then `predicted` and one column `probability_<class>` per class.

    Args:
        path: of the Parquet file.
        columns: what is known of each image, in row order.
        probabilities: float32 [n, classes]; a row of NaN stands for an image that could not be read and has null
            in each column.
        classes: names in label order.
    """
    readable: NDArray[np.bool_] = np.asarray(~np.isnan(probabilities).any(axis=1))
    predicted = [classes[int(row.argmax())] if ok else None for row, ok in zip(probabilities, readable, strict=True)]
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    arrays["predicted"] = pa.array(predicted, pa.string())
    for number, name in enumerate(classes):
        arrays[f"probability_{name}"] = pa.array(probabilities[:, number], pa.float32(), mask=~readable)
    pq.write_table(pa.table(arrays), path)


def predict_probabilities(model: Any, reader: RowReader | ViewReader, *, report: Callable[[int], None] = lambda _: None) -> Any:
    """Class probabilities float32 [n, classes] of all images of a reader, by a model that gives probabilities.

    Args:
        model: takes float32 [B, S, S, 3] in 0 to 255, or the activations that are read.
        reader: of the pixels, or of activations of plain images.
        report: called with the number of images done.

    Raises:
        RunError: a row can't be read.
    """
    folded = fold_normalization(model)

    # Not `model.predict_on_batch`, which builds a second graph for the smaller last batch.
    @tf.function(input_signature=[tf.TensorSpec([None, *reader.shape], reader.dtype)], jit_compile=False, autograph=False)  # type: ignore[untyped-decorator]
    def predict(images: Any) -> Any:
        return folded(tf.cast(images, tf.float32), training=False)

    batches, done = [], 0
    with own_errors(), put_off_signals() as let_signals_through:
        for images in build_plain_dataset(reader, batch_size=EVALUATION_BATCH_SIZE):
            batches.append(predict(images).numpy())
            done += len(batches[-1])
            report(done)
            let_signals_through()
    return np.concatenate(batches)
