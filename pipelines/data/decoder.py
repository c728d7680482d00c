"""Files in, rows of the image store out: every file is read once, checked against its digest, and decoded on all cores."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.contracts import StoreLayout
from pipelines.data.decode import (
    SERVED_FORMATS,
    decode_and_resize,
    decode_upright_pillow,
    jpeg_ratio,
    resize_image,
    resize_jpeg,
)
from pipelines.errors import ImageDecodeError, RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.sources.folder import read_unchanged
from pipelines.store.layouts import pack_row
from pipelines.store.rows import ImageRow

# Files to a call of TensorFlow: a call for each takes .4 ms of CPU time more, as much as decoding a small photo.
_CHUNK_FILES = 32
# Bounds the memory that files wait in: large photos go by themselves, since their decoding outweighs any call.
_CHUNK_BYTES = 4 * 2**20
_CHUNKS_AHEAD = 8  # under way at once: bounds the memory that decoded images wait in


@dataclass(frozen=True)
class SourceFile:
    """A file to decode.

    Attributes:
        sha256: of its bytes, in hex.
        path: relative to the source.
        format: as Pillow names it.
        size_bytes: of the file.
        upright_px: the shorter side of an image that need not be turned; 0 of others, and where it isn't known.
    """

    sha256: str
    path: str
    format: str
    size_bytes: int
    upright_px: int = 0


class ImageDecoder:
    """Turns the bytes of image files into pixels: by the served graph where it can, by Pillow where only that can.

    Safe to call from several threads.
    """

    def __init__(self, *, image_size: int, resize: Literal["stretch", "crop"]) -> None:
        self._options: Any = {"image_size": image_size, "resize": resize}

    def decode(self, contents: bytes) -> tuple[NDArray[np.uint8], bool]:
        """Pixels uint8 [S, S, 3], and whether the served graph made them.

        Raises:
            ImageDecodeError: neither can read it.
        """
        try:
            return _trace_decoder(**self._options)(tf.constant(contents)).numpy(), True
        except tf.errors.InvalidArgumentError:
            return resize_image(tf.constant(decode_upright_pillow(contents)), **self._options).numpy(), False

    def decode_all(self, contents: Sequence[bytes], *, ratio: int | None) -> NDArray[np.uint8]:
        """What `decode` gives of several files, uint8 [n, S, S, 3], all of them by the served graph.

        Args:
            contents: whole files.
            ratio: `jpeg_ratio` of all of them, if they are JPEGs that need no turning; None for any others.

        Raises:
            tf.errors.InvalidArgumentError: it can't read one of them.
        """
        return np.asarray(_trace_batch_decoder(ratio=ratio, **self._options)(tf.constant(contents)))


class FileDecoder:
    """Decodes files of a source into rows of a store.

    Args:
        root: the source.
        image_size: side of the square images, px.
        resize: how they are made square.
        layout: of the rows.
    """

    def __init__(self, root: Path, *, image_size: int, resize: Literal["stretch", "crop"], layout: StoreLayout) -> None:
        self._root = root
        self._image_size = image_size
        self._layout = layout
        self._decoder = ImageDecoder(image_size=image_size, resize=resize)

    def decode(self, files: Sequence[SourceFile], *, report: Report = ignore_progress) -> Iterator[ImageRow]:
        """The rows of some files, in their order.

        Raises:
            SourceChangedError: a file is not what the scan saw.
            RunError: a file that passed ingest can't be decoded (named).
        """
        started, done = time.monotonic(), 0
        waiting = _split_into_chunks(files)
        # As many threads as cores: each holds a whole photo, and more would decode none any sooner.
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def submit(count: int) -> Iterator[Future[list[ImageRow]]]:
                return (pool.submit(self._decode_chunk, chunk) for chunk in islice(waiting, count))

            under_way = deque(submit(_CHUNKS_AHEAD))
            while under_way:
                rows = under_way.popleft().result()
                under_way.extend(submit(1))  # so that threads have work while a shard is written
                yield from rows
                done += len(rows)
                rate = done / max(time.monotonic() - started, 1e-6)
                report(Progress(done, len(files), "images", images_per_second=rate))

    def _decode_chunk(self, files: Sequence[SourceFile]) -> list[ImageRow]:
        """All that the graph can read of one kind together; one by one where it can't read one of them."""
        contents = [read_unchanged(self._root, file.path, file.sha256) for file in files]
        rows: dict[int, ImageRow] = {}
        for ratio, numbers in self._group(files).items():
            try:
                images = self._decoder.decode_all([contents[number] for number in numbers], ratio=ratio)
            except tf.errors.InvalidArgumentError:
                continue
            rows |= {
                number: ImageRow(files[number].sha256, pack_row(image, layout=self._layout))
                for number, image in zip(numbers, images, strict=True)
            }
        return [rows.get(number) or self._decode_one(file, contents[number]) for number, file in enumerate(files)]

    def _group(self, files: Sequence[SourceFile]) -> dict[int | None, list[int]]:
        """Positions of the files that the graph may read, by the ratio to ask `ImageDecoder.decode_all` for."""
        groups: dict[int | None, list[int]] = {}
        for number, file in enumerate(files):
            is_known = file.format == "JPEG" and file.upright_px > 0
            ratio = jpeg_ratio(file.upright_px, least_side=self._image_size) if is_known else None
            if file.format in SERVED_FORMATS:
                groups.setdefault(ratio, []).append(number)
        return groups

    def _decode_one(self, file: SourceFile, contents: bytes) -> ImageRow:
        try:
            pixels, served = self._decoder.decode(contents)
        except ImageDecodeError as error:
            raise RunError(f"{file.path!r} passed ingest but can't be decoded ({error}); remove it and run again") from error
        return ImageRow(file.sha256, pack_row(pixels, layout=self._layout), served)


def _split_into_chunks(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    chunk: list[SourceFile] = []
    for file in files:
        is_full = len(chunk) == _CHUNK_FILES or sum(each.size_bytes for each in chunk) + file.size_bytes > _CHUNK_BYTES
        if chunk and is_full:
            yield chunk
            chunk = []
        chunk.append(file)
    if chunk:
        yield chunk


def _trace_once(trace: Any) -> Any:
    """Keeps what a function traced for its arguments, and lets threads wait for one another meanwhile."""
    lock, kept = threading.Lock(), functools.cache(trace)

    @functools.wraps(trace)
    def locked(**options: Any) -> Any:
        with lock:
            return kept(**options)

    return locked


@_trace_once
def _trace_decoder(*, image_size: int, resize: Literal["stretch", "crop"]) -> Any:
    """A graph from the bytes of a file to its pixels."""
    decode = tf.function(lambda contents: decode_and_resize(contents, image_size=image_size, resize=resize), autograph=False)
    return decode.get_concrete_function(tf.TensorSpec([], tf.string))


@_trace_once
def _trace_batch_decoder(*, ratio: int | None, image_size: int, resize: Literal["stretch", "crop"]) -> Any:
    """A graph from the bytes of files, string [n], to their pixels, one after the other."""
    pixels = tf.TensorSpec([image_size, image_size, 3], tf.uint8)

    def decode(contents: tf.Tensor) -> tf.Tensor:
        if ratio is None:
            return decode_and_resize(contents, image_size=image_size, resize=resize)
        return resize_jpeg(contents, ratio=ratio, image_size=image_size, resize=resize)

    def decode_all(files: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(decode, files, fn_output_signature=pixels, parallel_iterations=1)

    return tf.function(decode_all, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.string))
