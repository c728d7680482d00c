"""The image store: decoded, resized images as fixed-size rows in memory-mapped Arrow IPC files (shards).

Content-addressed twice: a row is found by the SHA-256 of the image file it came from, and a shard is named by the
SHA-256 of its own bytes, so that a damaged one is noticed. Shards never change; a later run adds new ones for images
never seen before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import RunError
from pipelines.store.artifacts import file_digest, file_in_place, read_json, scratch_folder, write_json

logger = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20  # held in memory while one is written; reading is by row, so larger ones bring nothing
SUFFIX = ".arrow"
VERIFIED = "verified.json"


@dataclass(frozen=True)
class RowPlace:
    """Where an image lies: the name of its shard and its row there.

    `served` says whether the exported SavedModel can read the image's file too, or only `prepare` can.
    """

    shard: str
    row: int
    served: bool


@dataclass(frozen=True)
class DecodedImage:
    """An image on its way into the store: the digest of its file, its pixels uint8 [S, S, 3], and `served` as in `RowPlace`."""

    sha256: str
    pixels: NDArray[np.uint8]
    served: bool


class ImageStore:
    """The shards of one kind of row (one image size and one way of resizing) in a folder.

    Args:
        home: the home; unfinished shards are written under its scratch folder.
        folder: of the shards.
        image_size: side of the square images, px.
    """

    def __init__(self, home: Path, folder: Path, *, image_size: int) -> None:
        self._home = home
        self._folder = folder
        self._shape = (image_size, image_size, 3)
        self._row_bytes = int(np.prod(self._shape))

    def shard_names(self) -> list[str]:
        """Names of the shards that are there, intact or not."""
        return sorted(path.name for path in self._folder.glob(f"*{SUFFIX}"))

    def remove_damaged(self) -> list[str]:
        """Removes shards whose bytes no longer match their name, says so in the log, and returns their names."""
        damaged = [name for name in self.shard_names() if not is_shard_intact(self._folder, name)]
        for name in damaged:
            logger.warning("shard %s of the image store is damaged; its images are decoded again", name)
            (self._folder / name).unlink(missing_ok=True)
        return damaged

    def catalogue(self, shards: Sequence[str] | None = None) -> dict[str, RowPlace]:
        """The place of every image in some shards, or in all, by the digest of the file it came from."""
        places: dict[str, RowPlace] = {}
        for name in self.shard_names() if shards is None else shards:
            batch = _open_shard(self._folder / name)
            images = zip(batch.column("sha256").to_pylist(), batch.column("served").to_pylist(), strict=True)
            for row, (digest, served) in enumerate(images):
                places.setdefault(digest, RowPlace(name, row, served))
        return places

    def add(self, images: Iterable[DecodedImage]) -> None:
        """Appends images as new shards.

        Finished shards stay when the process ends in the middle: the next run goes on from them.

        Raises:
            RunError: no space left on the device; finished shards stay.
        """
        per_shard = max(1, SHARD_BYTES // self._row_bytes)
        pixels = np.empty((per_shard, self._row_bytes), np.uint8)
        with scratch_folder(self._home) as scratch:
            kept: list[tuple[str, bool]] = []
            for image in images:
                if image.pixels.shape != self._shape or image.pixels.dtype != np.uint8:
                    raise ValueError(
                        f"`pixels` must be uint8 {self._shape}; received {image.pixels.dtype} {image.pixels.shape}"
                    )
                pixels[len(kept)] = image.pixels.reshape(-1)
                kept.append((image.sha256, image.served))
                if len(kept) == per_shard:
                    self._write_shard(scratch, kept, pixels)
                    kept = []
            if kept:
                self._write_shard(scratch, kept, pixels[: len(kept)])

    def _write_shard(self, scratch: Path, kept: Sequence[tuple[str, bool]], pixels: NDArray[np.uint8]) -> None:
        columns = {
            "sha256": pa.array([digest for digest, _ in kept], pa.string()),
            "served": pa.array([served for _, served in kept], pa.bool_()),
            "image": pa.FixedSizeBinaryArray.from_buffers(pa.binary(self._row_bytes), len(kept), [None, pa.py_buffer(pixels)]),
        }
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        temporary = scratch / f"shard{SUFFIX}"
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary.rename(self._folder / f"{file_digest(temporary)}{SUFFIX}")


class RowReader:
    """Gathers rows by number from memory-mapped shards; their bytes stay in the page cache, not in this process's memory.

    Args:
        folder: of the shards.
        places: where each example lies, in the order in which examples are numbered.
        image_size: side of the square images, px.
    """

    def __init__(self, folder: Path, places: Sequence[RowPlace], *, image_size: int) -> None:
        names = sorted({place.shard for place in places})
        numbers = {name: number for number, name in enumerate(names)}
        self._shards = [_rows_of(folder / name, image_size) for name in names]
        self._shard = np.array([numbers[place.shard] for place in places], np.int64)
        self._row = np.array([place.row for place in places], np.int64)
        self._shape = (image_size, image_size, 3)

    def __len__(self) -> int:
        return len(self._row)

    def gather(self, examples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images of some examples, int64 [B], as a new array uint8 [B, S, S, 3]."""
        images = np.empty((len(examples), *self._shape), np.uint8)
        for place, example in enumerate(examples):
            images[place] = self._shards[self._shard[example]][self._row[example]]
        return images


def is_shard_intact(folder: Path, name: str) -> bool:
    """Whether a shard's bytes match its name.

    The bytes are read only where size or modification time differ from those at the last check: a store may be far
    larger than what can be hashed on every run.
    """
    path = folder / name
    try:
        status = path.stat()
    except OSError:
        return False
    seen = [status.st_size, status.st_mtime_ns]
    verified = _read_verified(folder)
    if verified.get(name) == seen:
        return True
    if f"{file_digest(path)}{SUFFIX}" != name:
        return False
    with file_in_place(folder / VERIFIED) as temporary:
        write_json(temporary, {**verified, name: seen})
    return True


def fill(
    store: ImageStore, digests: Sequence[str], decode: Callable[[list[str]], Iterable[DecodedImage]]
) -> dict[str, RowPlace]:
    """Makes sure that the store holds each of some images, decoding just those that it lacks, and returns their places.

    Args:
        store: to look in and to add to.
        digests: of the image files that are needed.
        decode: called with the digests that are missing, once each; yields their images.

    Raises:
        RunError: `decode` left some out.
    """
    store.remove_damaged()
    places = store.catalogue()
    missing = [digest for digest in dict.fromkeys(digests) if digest not in places]
    if missing:
        store.add(decode(missing))
        places = store.catalogue()
    if absent := set(digests) - places.keys():
        raise RunError(
            f"{len(absent)} images are still missing from the image store after decoding; the first is {min(absent)}"
        )
    return {digest: places[digest] for digest in digests}


def _open_shard(path: Path) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def _rows_of(path: Path, image_size: int) -> NDArray[np.uint8]:
    """The images of a shard, uint8 [n, S, S, 3], as a view of the mapped file."""
    column = _open_shard(path).column("image")
    pixels = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * image_size * image_size * 3)
    return pixels.reshape(len(column), image_size, image_size, 3)


def _read_verified(folder: Path) -> Mapping[str, list[int]]:
    try:
        content: dict[str, list[int]] = read_json(folder / VERIFIED)
    except (OSError, ValueError):
        return {}
    return content
