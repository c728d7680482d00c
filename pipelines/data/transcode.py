"""Rows of the encoded image store made of those of the decoded one.

When a set outgrows `store.budget_gib`, `auto` changes the layout. The pixels of most images are there already, and a JPEG made
of them is the one that would be made of the file, byte for byte: no file is read and decoded for it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.store.images import image_store, read_images
from pipelines.store.layouts import pack_row
from pipelines.store.rows import ImageRow, Places, RowReader

_GATHERED = 64  # images held at once


@dataclass(frozen=True)
class StoredPixels:
    """Images of the decoded store.

    Attributes:
        digests: SHA-256 of their files.
        others: of those images that were asked for and are not in it.
        served: of each, as in `ImageRow`.
        reader: of their pixels, in the same order.
    """

    digests: list[str]
    others: list[str]
    served: list[bool]
    reader: RowReader

    def encode(self) -> Iterator[ImageRow]:
        """Their rows for the encoded store."""
        for start in range(0, len(self.digests), _GATHERED):
            part = slice(start, start + _GATHERED)
            images = self.reader.gather(np.arange(len(self.digests))[part])
            for digest, served, pixels in zip(self.digests[part], self.served[part], images, strict=True):
                yield ImageRow(digest, pack_row(pixels, layout="encoded"), served)


def find_pixels(home: Path, folder: Path, digests: list[str], *, image_size: int) -> StoredPixels:
    """Those of some images that a decoded store holds; its damaged shards are removed first, and hold none.

    Args:
        home: the home.
        folder: of the store's shards, there or not.
        digests: SHA-256 of the images' files.
        image_size: side of the square images, px.
    """
    store = image_store(home, folder, image_size=image_size, layout="decoded")
    store.remove_damaged()
    places = store.locate(pa.array(digests, pa.string()))
    there = places.shard >= 0
    found = Places(places.shards, places.shard[there], places.row[there], places.served[there])
    reader = read_images(folder, found, image_size=image_size, layout="decoded")
    stored, others = ([digests[number] for number in np.flatnonzero(chosen)] for chosen in (there, ~there))
    return StoredPixels(stored, others, found.served.tolist(), reader)
