"""Prepare: decode and resize each image once, into the image store; images that it already holds cost nothing."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages, StoreLayout
from pipelines.data.decode import SERVED_FORMATS, decode_and_resize, decode_upright_pillow, resize_image
from pipelines.data.transcode import find_pixels
from pipelines.errors import ImageDecodeError, RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.sources.folder import read_unchanged
from pipelines.store.artifacts import artifact_path, publish, scratch_folder, write_json
from pipelines.store.images import image_store, read_images
from pipelines.store.index import read_usable
from pipelines.store.layouts import JPEG_QUALITY, choose_layout, pack_row
from pipelines.store.rows import ImageRow, Places, RowReader, fill

logger = logging.getLogger(__name__)

# Part of a store's folder name: rows that another version of the decode graph made are not mixed with these.
DECODE_VERSION = 2
_AHEAD = 128  # files under way at once: bounds the memory that decoded images wait in
_INDEX_COLUMNS = ("path", "sha256", "label", "split", "format", "mode")
_EXAMPLES_SCHEMA = pa.schema(
    [("path", pa.string()), ("sha256", pa.string()), ("label", pa.int32()), ("split", pa.string()), ("served", pa.bool_())]
)


@dataclass(frozen=True)
class Examples:
    """The images of one split, numbered from 0 in the order of the index.

    Attributes:
        table: Arrow columns `path`, relative to the source, and `sha256` of the file.
        labels: int64 [n], index into the classes.
        served: bool [n], whether the SavedModel can read the file too.
    """

    table: pa.Table
    labels: NDArray[np.int64]
    served: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def paths(self) -> list[str]:
        """Paths of the files, relative to the source; made anew each time."""
        paths: list[str] = self.table["path"].to_pylist()
        return paths

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the files, in hex; made anew each time."""
        digests: list[str] = self.table["sha256"].to_pylist()
        return digests


def prepare(
    home: Path,
    root: Path,
    index: ImageIndex,
    *,
    image_size: int,
    resize: Literal["stretch", "crop"],
    store: StoreConfig,
    report: Report = ignore_progress,
) -> PreparedImages:
    """Makes sure that the image store holds every usable image of the index.

    Which layout was chosen, what is damaged, what need not be decoded although the layout changed and that another version's
    store is left alone is said in a line each.

    Raises:
        SourceChangedError: a file is not what the scan saw.
        RunError: a file that passed ingest can't be decoded (named), or the disk is full.
    """
    rows = read_usable(artifact_path(home, index.artifact) / "index.parquet", _INDEX_COLUMNS)
    needed = pc.count_distinct(rows["sha256"]).as_py()
    layout, choice = choose_layout(store, images=needed, image_size=image_size)

    def say(line: str, level: int = logging.WARNING) -> None:
        logger.log(level, line)
        report(Progress(0, needed, "images", line, milestone=True))

    say(choice, logging.INFO)
    folder_of = partial(store_folder, image_size=image_size, resize=resize)
    folder = folder_of(layout=layout)
    for other in _other_versions(home / folder):
        say(f"image store {other} was made by another version and is left alone; its images are decoded again")
    decoder = ImageDecoder(image_size=image_size, resize=resize)

    def decode_missing(digests: list[str]) -> Iterator[ImageRow]:
        if layout == "encoded":
            stored = find_pixels(home, home / folder_of(layout="decoded"), digests, image_size=image_size)
            if stored.digests:
                say(f"{len(stored.digests):,} images are encoded from the pixels that the store holds of them", logging.INFO)
            yield from stored.encode()
            digests = stored.others
        paths = rows["path"].take(pc.index_in(pa.array(digests, pa.string()), value_set=rows["sha256"])).to_pylist()
        files = list(zip(digests, paths, strict=True))
        yield from decode_files(root, files, decoder=decoder, layout=layout, report=report)

    rows_store = image_store(home, home / folder, image_size=image_size, layout=layout)
    places = fill(rows_store, rows["sha256"], decode_missing, say=say)
    return publish_prepared(home, rows, places, classes=index.classes, image_size=image_size, resize=resize, layout=layout)


def publish_prepared(
    home: Path,
    rows: pa.Table,
    places: Places,
    *,
    classes: Sequence[str],
    image_size: int,
    resize: Literal["stretch", "crop"],
    layout: StoreLayout,
) -> PreparedImages:
    """Publishes which images of the store are the examples of a data set.

    Args:
        home: the home.
        rows: columns `path`, `sha256`, `label`, `split`, `format` and `mode` of the index.
        places: of the rows' images.
        classes: names in label order.
        image_size: side of the square images, px.
        resize: how they were made square.
        layout: of the store's rows.
    """
    labels = pc.index_in(rows["label"], value_set=pa.array(classes))
    columns = [rows["path"], rows["sha256"], labels, rows["split"], pa.array(places.served)]
    # What the pixels depend on besides the files is part of the digest that later stages are keyed by.
    pixels = {"image_size": image_size, "resize": resize, "decode_version": DECODE_VERSION}
    if layout == "encoded":
        pixels["jpeg_quality"] = JPEG_QUALITY
    with scratch_folder(home) as scratch:
        pq.write_table(pa.table(columns, schema=_EXAMPLES_SCHEMA), scratch / "examples.parquet")
        write_json(scratch / "pixels.json", pixels)
        artifact = publish(home, "prepare", scratch)
    return PreparedImages(
        artifact=artifact,
        classes=tuple(classes),
        store=store_folder(image_size=image_size, resize=resize, layout=layout).as_posix(),
        shards=places.used_shards(),
        image_size=image_size,
        resize=resize,
        layout=layout,
        prepare_only_formats=_prepare_only_formats(rows, places),
    )


def store_folder(*, image_size: int, resize: Literal["stretch", "crop"], layout: StoreLayout) -> Path:
    """Where the image store for one kind of rows lies, relative to the home."""
    kind = f"{image_size}px-{resize}" + (f"-jpeg{JPEG_QUALITY}" if layout == "encoded" else "")
    return Path("images", f"{kind}-v{DECODE_VERSION}")


def read_examples(home: Path, prepared: PreparedImages, split: str) -> tuple[Examples, RowReader]:
    """The examples of one split, and a reader of their pixels by example number.

    Raises:
        RunError: an image is not in the shards that it was prepared in.
    """
    examples = read_split(home, prepared, split)
    folder = home / prepared.store
    store = image_store(home, folder, image_size=prepared.image_size, layout=prepared.layout)
    places = store.locate(examples.table["sha256"], shards=prepared.shards)
    if (places.shard < 0).any():
        raise RunError(f"{folder} lacks images that were prepared; run the same command again")
    reader = read_images(folder, places, image_size=prepared.image_size, layout=prepared.layout)
    return examples, reader


def read_split(home: Path, prepared: PreparedImages, split: str) -> Examples:
    """The examples of one split, without their pixels."""
    table = pq.read_table(artifact_path(home, prepared.artifact) / "examples.parquet", filters=[("split", "==", split)])
    labels = table["label"].to_numpy().astype(np.int64)
    served = np.asarray(table["served"].to_numpy(), np.bool_)
    return Examples(table.select(["path", "sha256"]), labels, served)


class ImageDecoder:
    """Turns the bytes of one image file into pixels: by the served graph where it can, by Pillow where only that can.

    Safe to call from several threads.
    """

    def __init__(self, *, image_size: int, resize: Literal["stretch", "crop"]) -> None:
        self._options: Any = {"image_size": image_size, "resize": resize}
        # Traced here, before threads share it.
        decode = tf.function(lambda contents: decode_and_resize(contents, **self._options))
        self._decode = decode.get_concrete_function(tf.TensorSpec([], tf.string))

    def decode(self, contents: bytes) -> tuple[NDArray[np.uint8], bool]:
        """Pixels uint8 [S, S, 3], and whether the served graph made them.

        Raises:
            ImageDecodeError: neither can read it.
        """
        try:
            return self._decode(tf.constant(contents)).numpy(), True
        except tf.errors.InvalidArgumentError:
            return resize_image(tf.constant(decode_upright_pillow(contents)), **self._options).numpy(), False


def decode_files(
    root: Path,
    files: Sequence[tuple[str, str]],
    *,
    decoder: ImageDecoder,
    layout: StoreLayout,
    report: Report = ignore_progress,
) -> Iterator[ImageRow]:
    """Decodes files, given as (digest, path), into rows of the store, in parallel and in order.

    Raises: as `prepare`.
    """
    started = time.monotonic()
    waiting = iter(files)
    # As many threads as cores: each holds a whole photo, and more would decode none any sooner.
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(count: int) -> Iterator[Future[ImageRow]]:
            return (pool.submit(_decode_file, root, file, decoder, layout) for file in islice(waiting, count))

        under_way = deque(submit(_AHEAD))
        for done in range(1, len(files) + 1):
            image = under_way.popleft().result()
            under_way.extend(submit(1))  # so that threads have work while a shard is written
            yield image
            rate = done / max(time.monotonic() - started, 1e-6)
            report(Progress(done, len(files), "images", images_per_second=rate))


def _decode_file(root: Path, file: tuple[str, str], decoder: ImageDecoder, layout: StoreLayout) -> ImageRow:
    digest, path = file
    try:
        pixels, served = decoder.decode(read_unchanged(root, path, digest))
    except ImageDecodeError as error:
        raise RunError(f"{path!r} passed ingest but can't be decoded ({error}); remove it and run again") from error
    return ImageRow(digest, pack_row(pixels, layout=layout), served)


def _other_versions(folder: Path) -> list[str]:
    """Names of the stores of this kind that other versions made; none once this version has one of its own."""
    if folder.exists():
        return []
    kind = folder.name.rpartition("-v")[0]
    return sorted(path.name for path in folder.parent.glob(f"{kind}-v*") if path.is_dir())


def _prepare_only_formats(rows: pa.Table, places: Places) -> tuple[str, ...]:
    """Formats that the served graph could not read; with the pixel mode where it reads others of the same format."""
    unserved = rows.select(["format", "mode"]).filter(pa.array(~places.served))
    kinds = unserved.group_by(["format", "mode"]).aggregate([]).to_pylist()
    names = {
        f"{kind['format']} (mode {kind['mode']})" if kind["format"] in SERVED_FORMATS else kind["format"] for kind in kinds
    }
    return tuple(sorted(names))
