"""Prepare: decode and resize each image once, into the image store; images that it already holds cost nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.config import StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages, StoreLayout
from pipelines.data.decode import SERVED_FORMATS
from pipelines.data.decoder import FileDecoder, SourceFile
from pipelines.data.transcode import find_pixels
from pipelines.errors import RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.store.artifacts import artifact_path, publish, scratch_folder, write_json
from pipelines.store.images import image_store, read_images
from pipelines.store.index import read_usable
from pipelines.store.layouts import JPEG_QUALITY, choose_layout
from pipelines.store.rows import ImageRow, Places, RowReader, fill

logger = logging.getLogger(__name__)

# Part of a store's folder name: rows that another version of the decode graph made are not mixed with these.
DECODE_VERSION = 2
_INDEX_COLUMNS = ("path", "sha256", "label", "split", "bytes", "format", "mode", "width", "height", "orientation")
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
    decoder = FileDecoder(root, image_size=image_size, resize=resize, layout=layout)

    def decode_missing(digests: list[str]) -> Iterator[ImageRow]:
        if layout == "encoded":
            stored = find_pixels(home, home / folder_of(layout="decoded"), digests, image_size=image_size)
            if stored.digests:
                say(f"{len(stored.digests):,} images are encoded from the pixels that the store holds of them", logging.INFO)
            yield from stored.encode()
            digests = stored.others
        files = rows.take(pc.index_in(pa.array(digests, pa.string()), value_set=rows["sha256"]))
        yield from decoder.decode(source_files(files), report=report)

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


def read_examples(
    home: Path, prepared: PreparedImages, split: str, *, only: Sequence[str] | None = None
) -> tuple[Examples, RowReader]:
    """The examples of one split, as `read_split`, and a reader of their pixels by example number.

    Raises:
        RunError: an image is not in the shards that it was prepared in.
    """
    examples = read_split(home, prepared, split, only=only)
    folder = home / prepared.store
    store = image_store(home, folder, image_size=prepared.image_size, layout=prepared.layout)
    places = store.locate(examples.table["sha256"], shards=prepared.shards)
    if (places.shard < 0).any():
        raise RunError(f"{folder} lacks images that were prepared; run the same command again")
    reader = read_images(folder, places, image_size=prepared.image_size, layout=prepared.layout)
    return examples, reader


def read_split(home: Path, prepared: PreparedImages, split: str, *, only: Sequence[str] | None = None) -> Examples:
    """The examples of one split, without their pixels; where `only` is given, those whose files have these SHA-256."""
    table = pq.read_table(artifact_path(home, prepared.artifact) / "examples.parquet", filters=[("split", "==", split)])
    if only is not None:
        table = table.filter(pc.is_in(table["sha256"], pa.array(only, pa.string())))
    labels = table["label"].to_numpy().astype(np.int64)
    served = np.asarray(table["served"].to_numpy(), np.bool_)
    return Examples(table.select(["path", "sha256"]), labels, served)


def source_files(rows: pa.Table) -> list[SourceFile]:
    """What an index knows of files that need decoding, by its columns of the same names."""
    upright = pc.equal(rows["orientation"], 1)
    sides = pc.if_else(upright, pc.min_element_wise(rows["width"], rows["height"]), 0)
    columns = (rows["sha256"], rows["path"], rows["format"], rows["bytes"], sides)
    return [SourceFile(*values) for values in zip(*(column.to_pylist() for column in columns), strict=True)]


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
