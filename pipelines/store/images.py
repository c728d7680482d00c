"""The image store: resized images, square, as pixels or as a JPEG of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.contracts import StoreLayout
from pipelines.store.layouts import open_rows, row_type
from pipelines.store.rows import Places, RowReader, RowStore


def image_store(home: Path, folder: Path, *, image_size: int, layout: StoreLayout) -> RowStore:
    """The store of one kind of image (one size, one way of resizing, one layout) in a folder."""
    return RowStore(home, folder, row_type(layout, image_size=image_size))


def read_images(folder: Path, places: Places, *, image_size: int, layout: StoreLayout) -> RowReader:
    """A reader of images uint8 [S, S, 3] by example number; see `RowReader`."""
    rows, shape = partial(open_rows, layout=layout, image_size=image_size), (image_size, image_size, 3)
    return RowReader(folder, places, open_rows=rows, shape=shape, dtype=np.uint8)
