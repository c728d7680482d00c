"""The activation store: what the frozen part of a network makes of images, a row for each augmented view of each image.

Every view has a folder of shards of its own, under a name made of all that its numbers depend on besides the image's file: the
network's weights, how its pixels were made, how they were augmented. So whatever was ever stored is found again.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts import StoredActivations
from pipelines.errors import RunError
from pipelines.store.layouts import ArrayRows
from pipelines.store.rows import RowReader, RowStore

# As many rows as a network makes in seconds rather than minutes: what is not in a shard is lost with the process.
_SHARD_BYTES = 8 * 2**20


def activation_store(home: Path, folder: Path, *, shape: tuple[int, ...], dtype: str) -> RowStore:
    """The store of one view."""
    return RowStore(home, folder, pa.binary(row_bytes(shape, dtype)), shard_bytes=_SHARD_BYTES)


def row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Of one image's activation."""
    return math.prod(shape) * np.dtype(dtype).itemsize


class ViewReader:
    """Gathers activations of examples, each in one of its views.

    Args:
        home: the home.
        stored: what to read.
        digests: of the files of the examples, in the order in which these are numbered.
        views: how many of the stored views to read; validation images have only the plain one.

    Attributes:
        shape: of one image's activation.
        dtype: of the arrays.

    Raises:
        RunError: the store lacks one.
    """

    def __init__(self, home: Path, stored: StoredActivations, digests: pa.ChunkedArray, *, views: int) -> None:
        self.shape, self.dtype = stored.shape, np.dtype(stored.dtype)
        self._examples = len(digests)
        self._readers = []
        for view in stored.views[:views]:
            folder = home / view.store
            store = activation_store(home, folder, shape=self.shape, dtype=stored.dtype)
            places = store.locate(digests, shards=view.shards)
            if (places.shard < 0).any():
                raise RunError(f"{folder} lacks activations that were stored; run the same command again")
            rows = partial(ArrayRows, shape=self.shape, dtype=self.dtype)
            self._readers.append(RowReader(folder, places, open_rows=rows, shape=self.shape, dtype=self.dtype))

    def __len__(self) -> int:
        return self._examples

    def gather(self, examples: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """The activations of some examples, int64 [B], each in the view given, int64 [B] (None: plain), as [B, *shape]."""
        if views is None or len(self._readers) == 1:
            return self._readers[0].gather(examples)
        gathered = np.empty((len(examples), *self.shape), self.dtype)
        for view, reader in enumerate(self._readers):
            shown = views == view
            gathered[shown] = reader.gather(examples[shown])
        return gathered

    def shown_views(self, image_ids: NDArray[np.uint64], epoch: int, showings: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which view of each image is shown in an epoch: each in its turn, and not all images in step.

        Args:
            image_ids: uint64 [B], see `pipelines.augment.philox.image_ids`.
            epoch: from 0, over both phases.
            showings: int64 [B], as in `pipelines.augment.philox.DrawKey`.
        """
        views = np.uint64(len(self._readers))
        return (image_ids % views + np.uint64(epoch) + showings.astype(np.uint64)).astype(np.int64) % np.int64(views)
