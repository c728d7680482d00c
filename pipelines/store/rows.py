"""Stores of fixed things made of images (their pixels, their activations) as rows of memory-mapped Arrow IPC files (shards).

A row is found by the SHA-256 of its image's file.

Shards never change; a later run adds new ones for images never seen before. Where images lie is kept in columns, not in
one Python object per image: that would soon be the largest thing in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.aligned import new_batch
from pipelines.errors import RunError
from pipelines.store.artifacts import scratch_folder
from pipelines.store.layouts import ShardRows
from pipelines.store.shards import SUFFIX, damaged_shards, has_schema, note_intact, open_shard, write_shard

logger = logging.getLogger(__name__)

# Held in memory. Reading is by row, so larger ones bring nothing, and nothing is left to do while the last one is written.
SHARD_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ImageRow:
    """What is kept of an image, on its way into a store: the digest of its file, the bytes of the row, and `served`.

    `served` says whether the exported SavedModel can read the image's file too, or only `prepare` can.
    """

    sha256: str
    contents: bytes | memoryview
    served: bool = True


@dataclass(frozen=True)
class Places:
    """Where images lie.

    Attributes:
        shards: names of shards.
        shard: int32 [n], of each image an index into `shards`, or -1 where the store lacks it.
        row: int32 [n], its row there.
        served: bool [n], as in `ImageRow`.
    """

    shards: tuple[str, ...]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    served: NDArray[np.bool_]

    def used_shards(self) -> tuple[str, ...]:
        """Names of the shards that hold at least one of the images, sorted."""
        return tuple(sorted(self.shards[number] for number in np.unique(self.shard) if number >= 0))


class RowStore:
    """The shards of one kind of row in a folder.

    Args:
        home: the home; unfinished shards are written under its scratch folder.
        folder: of the shards.
        row: the type of a row: binary, of a fixed size or not.
        shard_bytes: how large a shard may grow: what is not in one yet is lost with the process.
    """

    def __init__(self, home: Path, folder: Path, row: pa.DataType, *, shard_bytes: int | None = None) -> None:
        self._home = home
        self._folder = folder
        self._shard_bytes = shard_bytes or SHARD_BYTES
        self._schema = pa.schema([("sha256", pa.string()), ("served", pa.bool_()), ("image", row)])

    def shard_names(self) -> list[str]:
        """Names of the shards that are there, intact or not."""
        return sorted(path.name for path in self._folder.glob(f"*{SUFFIX}"))

    def remove_damaged(self) -> list[str]:
        """Removes shards whose bytes do not match their name, or that hold other columns, and returns their names."""
        names = self.shard_names()
        damaged = set(damaged_shards(self._folder, names))
        damaged |= {name for name in names if name not in damaged and not has_schema(self._folder / name, self._schema)}
        for name in damaged:
            (self._folder / name).unlink(missing_ok=True)
        return sorted(damaged)

    def locate(self, digests: pa.Array | pa.ChunkedArray, *, shards: Sequence[str] | None = None) -> Places:
        """The places of images, given by the digests of their files, in some shards or in all."""
        names = self.shard_names() if shards is None else shards
        batches = [open_shard(self._folder / name) for name in names]
        stored = pa.chunked_array([batch.column("sha256") for batch in batches], pa.string())
        served = pa.chunked_array([batch.column("served") for batch in batches], pa.bool_()).to_numpy()
        found = pc.index_in(digests, value_set=stored).fill_null(-1).to_numpy()
        there = found >= 0
        ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)
        shard = np.where(there, np.searchsorted(ends, found, side="right"), -1).astype(np.int32)
        starts = np.concatenate([[0], ends])
        row = np.where(there, found - starts[shard], 0).astype(np.int32)
        return Places(tuple(names), shard, row, there & served[found] if len(served) else there)

    def add(self, images: Iterable[ImageRow]) -> None:
        """Appends images as new shards.

        Finished shards stay when the process ends in the middle: the next run goes on from them.

        Raises:
            ValueError: a row is not as long as its type says.
            RunError: no space left on the device; finished shards stay.
        """
        with self.appending() as appender:
            for image in images:
                appender.append(image)

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Gives what appends one image at a time, as `add` does; what is left over is written on leaving, interrupted or not.

        Raises: as `add`.
        """
        with scratch_folder(self._home) as scratch:
            appender = Appender(self._folder, scratch, _Pending(self._schema, self._shard_bytes))
            try:
                yield appender
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C, and what Prefect makes of SIGTERM: somebody wants to go on later
                    appender.flush()
                raise
            appender.flush()
        note_intact(self._folder, appender.written)


class Appender:
    """Appends images to a store, shard by shard; what is in no shard yet is lost with the process.

    Attributes:
        written: names of the shards so far.
    """

    def __init__(self, folder: Path, scratch: Path, pending: _Pending) -> None:
        self._folder, self._scratch, self._pending = folder, scratch, pending
        self.written: list[str] = []

    def append(self, image: ImageRow) -> None:
        """Appends one image, and writes a shard if it is full."""
        self._pending.append(image)
        if self._pending.is_full():
            self.flush()

    def flush(self) -> None:
        """Writes what is pending as a shard, however small."""
        if len(self._pending):
            self.written.append(write_shard(self._folder, self._scratch, self._pending.to_batch()))
            self._pending.clear()


class _Pending:
    """The rows of a shard that is not full yet: their bytes once, in one buffer for all shards that Arrow takes as it is.

    A buffer that grows would be copied as a whole each time, and each new one costs page faults.
    """

    def __init__(self, schema: pa.Schema, shard_bytes: int) -> None:
        self._schema = schema
        self._shard_bytes = shard_bytes
        self._contents = np.empty(shard_bytes, np.uint8)  # takes memory as it is written to
        self._rows: list[tuple[str, bool, int]] = []  # digest, served, where the row ends

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, image: ImageRow) -> None:
        """Puts an image behind the others; ValueError where its contents have not the length of a row."""
        kind = self._schema.field("image").type
        if pa.types.is_fixed_size_binary(kind) and len(image.contents) != kind.byte_width:
            raise ValueError(f"`contents` must be {kind.byte_width} bytes of pixels; received {len(image.contents)}")
        start = self._end
        end = start + len(image.contents)
        if end > len(self._contents):  # one row may be larger than all that came before, or than a shard
            self._contents = np.concatenate([self._contents[:start], np.empty(2 * (end - start), np.uint8)])
        self._contents[start:end] = np.frombuffer(image.contents, np.uint8)
        self._rows.append((image.sha256, image.served, end))

    def is_full(self) -> bool:
        """Whether another image as large as those here may exceed the bytes of a shard."""
        return self._end * (len(self) + 1) > self._shard_bytes * len(self)

    def to_batch(self) -> pa.RecordBatch:
        """Valid until the next `append`."""
        digests, served, ends = zip(*self._rows, strict=True)
        kind = self._schema.field("image").type
        buffers = [None, pa.py_buffer(self._contents[: self._end])]
        if not pa.types.is_fixed_size_binary(kind):
            buffers.insert(1, pa.py_buffer(np.array([0, *ends], np.int32)))
        image = pa.Array.from_buffers(kind, len(self), buffers)
        return pa.record_batch([pa.array(digests, pa.string()), pa.array(served), image], schema=self._schema)

    def clear(self) -> None:
        self._rows.clear()

    @property
    def _end(self) -> int:
        return self._rows[-1][2] if self._rows else 0


class RowReader:
    """Gathers rows by number from memory-mapped shards; their bytes stay in the page cache, not in this process's memory.

    Args:
        folder: of the shards.
        places: where each example lies, in the order in which examples are numbered; all must be there.
        open_rows: opens the column of a shard.
        shape: of one row, as an array.
        dtype: of the arrays.

    Attributes:
        shape: of one row.
        dtype: of the arrays.
    """

    def __init__(
        self, folder: Path, places: Places, *, open_rows: Callable[[Any], ShardRows], shape: tuple[int, ...], dtype: Any
    ) -> None:
        used, shard = np.unique(places.shard, return_inverse=True)
        self._paths = [folder / places.shards[number] for number in used]
        self._shards = [open_rows(open_shard(path).column("image")) for path in self._paths]
        self._shard = shard.astype(np.int32)
        self._row = places.row
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._row)

    def gather(self, examples: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of some examples, int64 [B], as a new array [B, *shape].

        Raises:
            RunError: a row can't be decoded, although its shard was found intact.
        """
        images = new_batch((len(examples), *self.shape), self.dtype)
        places = zip(images, self._shard[examples].tolist(), self._row[examples].tolist(), strict=True)
        for image, shard, row in places:
            try:
                self._shards[shard].read(row, image)
            except ValueError as error:
                raise RunError(f"{self._paths[shard]} is damaged ({error}); remove it and run again") from error
        return images


def fill(
    store: RowStore,
    digests: pa.Array | pa.ChunkedArray,
    decode: Callable[[list[str]], Iterable[ImageRow]],
    *,
    say: Callable[[str], None] = logger.warning,
) -> Places:
    """Makes sure that the store holds each of some images, decoding just those that it lacks, and returns their places.

    Args:
        store: to look in and to add to.
        digests: of the image files that are needed.
        decode: called with the digests that are missing, once each; yields their images.
        say: told, in one line each, of shards that are damaged.

    Raises:
        RunError: `decode` left some out.
    """
    for name in store.remove_damaged():
        say(f"shard {name} of the image store is damaged; its images are decoded again")
    places = store.locate(digests)
    if (places.shard < 0).any():
        store.add(decode(digests.filter(pa.array(places.shard < 0)).unique().to_pylist()))
        places = store.locate(digests)
    if (places.shard < 0).any():
        absent = digests.filter(pa.array(places.shard < 0)).unique().to_pylist()
        raise RunError(
            f"{len(absent)} images are still missing from the image store after decoding; the first is {min(absent)}"
        )
    return places
