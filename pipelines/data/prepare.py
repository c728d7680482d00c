"""Prepare: decode and resize each image once, into the image store; images that it already holds cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.contracts import ImageIndex, PreparedImages
from pipelines.data.decode import SERVED_FORMATS, decode_and_resize, decode_upright_pillow, resize_image
from pipelines.errors import ImageDecodeError, RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.sources.folder import read_unchanged
from pipelines.store.artifacts import artifact_path, publish, scratch_folder, write_json
from pipelines.store.images import DecodedImage, ImageStore, RowPlace, RowReader, fill
from pipelines.store.index import read_index, usable

# Part of a store's folder name: rows that another version of the decode graph made are not mixed with these.
DECODE_VERSION = 1
_CHUNK = 64  # files under way at once: bounds the memory that decoded images wait in


@dataclass(frozen=True)
class Examples:
    """The images of one split, numbered from 0 in the order of the index.

    Attributes:
        paths: relative to the source.
        digests: SHA-256 of the files.
        labels: int64 [n], index into the classes.
        served: bool [n], whether the SavedModel can read the file too.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    labels: NDArray[np.int64]
    served: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.paths)


def prepare(
    home: Path,
    root: Path,
    index: ImageIndex,
    *,
    image_size: int,
    resize: Literal["stretch", "crop"],
    report: Report = ignore_progress,
) -> PreparedImages:
    """Makes sure that the image store holds every usable image of the index.

    Raises:
        SourceChangedError: a file is not what the scan saw.
        RunError: a file that passed ingest can't be decoded (named), or the disk is full.
    """
    rows = usable(read_index(artifact_path(home, index.artifact) / "index.parquet"))
    folder = Path("images", f"{image_size}px-{resize}-v{DECODE_VERSION}")
    store = ImageStore(home, home / folder, image_size=image_size)
    paths = {row["sha256"]: row["path"] for row in rows}
    decoder = ImageDecoder(image_size=image_size, resize=resize)

    def decode_missing(digests: list[str]) -> Iterator[DecodedImage]:
        files = [(digest, paths[digest]) for digest in digests]
        return decode_files(root, files, decoder=decoder, report=report)

    places = fill(store, list(paths), decode_missing)
    with scratch_folder(home) as scratch:
        _write_examples(scratch / "examples.parquet", rows, places, index.classes)
        # What the pixels depend on besides the files is part of the digest that later stages are keyed by.
        write_json(scratch / "pixels.json", {"image_size": image_size, "resize": resize, "decode_version": DECODE_VERSION})
        artifact = publish(home, "prepare", scratch)
    return PreparedImages(
        artifact=artifact,
        classes=index.classes,
        store=folder.as_posix(),
        shards=tuple(sorted({place.shard for place in places.values()})),
        image_size=image_size,
        resize=resize,
        prepare_only_formats=_prepare_only_formats(rows, places),
    )


def read_examples(home: Path, prepared: PreparedImages, split: str) -> tuple[Examples, RowReader]:
    """The examples of one split, and a reader of their pixels by example number."""
    table = pq.read_table(artifact_path(home, prepared.artifact) / "examples.parquet", filters=[("split", "==", split)])
    digests = tuple(table["sha256"].to_pylist())
    store = ImageStore(home, home / prepared.store, image_size=prepared.image_size)
    catalogue = store.catalogue(prepared.shards)
    examples = Examples(
        paths=tuple(table["path"].to_pylist()),
        digests=digests,
        labels=table["label"].to_numpy().astype(np.int64),
        served=np.asarray(table["served"].to_pylist(), np.bool_),
    )
    places = [catalogue[digest] for digest in digests]
    return examples, RowReader(home / prepared.store, places, image_size=prepared.image_size)


class ImageDecoder:
    """Turns the bytes of one image file into pixels: by the served graph where it can, by Pillow where only that can.

    Safe to call from several threads.
    """

    def __init__(self, *, image_size: int, resize: Literal["stretch", "crop"]) -> None:
        bytes_spec = tf.TensorSpec([], tf.string)
        pixels_spec = tf.TensorSpec([None, None, 3], tf.uint8)
        self._decode = _concrete(lambda contents: decode_and_resize(contents, image_size=image_size, resize=resize), bytes_spec)
        self._resize = _concrete(lambda pixels: resize_image(pixels, image_size=image_size, resize=resize), pixels_spec)

    def decode(self, contents: bytes) -> tuple[NDArray[np.uint8], bool]:
        """Pixels uint8 [S, S, 3], and whether the served graph made them.

        Raises:
            ImageDecodeError: neither can read it.
        """
        try:
            return self._decode(tf.constant(contents)).numpy(), True
        except tf.errors.InvalidArgumentError:
            return self._resize(tf.constant(decode_upright_pillow(contents))).numpy(), False


def decode_files(
    root: Path, files: Sequence[tuple[str, str]], *, decoder: ImageDecoder, report: Report = ignore_progress
) -> Iterator[DecodedImage]:
    """Decodes files, given as (digest, path), in parallel and in order.

    Raises: as `prepare`.
    """
    started, done = time.monotonic(), 0
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _CHUNK):
            for image in pool.map(lambda file: _decode_file(root, file, decoder), files[start : start + _CHUNK]):
                yield image
                done += 1
                rate = done / max(time.monotonic() - started, 1e-6)
                report(Progress(done, len(files), "images", images_per_second=rate))


def _decode_file(root: Path, file: tuple[str, str], decoder: ImageDecoder) -> DecodedImage:
    digest, path = file
    try:
        pixels, served = decoder.decode(read_unchanged(root, path, digest))
    except ImageDecodeError as error:
        raise RunError(f"{path!r} passed ingest but can't be decoded ({error}); remove it and run again") from error
    return DecodedImage(digest, pixels, served)


def _concrete(function: Callable[[Any], Any], spec: Any) -> Any:
    """Traces once, before threads share it."""
    return tf.function(function).get_concrete_function(spec)


def _write_examples(path: Path, rows: Sequence[Any], places: dict[str, RowPlace], classes: Sequence[str]) -> None:
    labels = {name: number for number, name in enumerate(classes)}
    columns = {
        "path": [row["path"] for row in rows],
        "sha256": [row["sha256"] for row in rows],
        "label": pa.array([labels[row["label"]] for row in rows], pa.int32()),
        "split": [row["split"] for row in rows],
        "served": [places[row["sha256"]].served for row in rows],
    }
    pq.write_table(pa.table(columns), path)


def _prepare_only_formats(rows: Sequence[Any], places: dict[str, RowPlace]) -> tuple[str, ...]:
    """Formats that the served graph could not read; with the pixel mode where it reads others of the same format."""
    unserved = [row for row in rows if not places[row["sha256"]].served]
    names = {f"{row['format']} (mode {row['mode']})" if row["format"] in SERVED_FORMATS else row["format"] for row in unserved}
    return tuple(sorted(names))
