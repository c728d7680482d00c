"""What the bytes of a row are: numbers as they are, or in the image store a JPEG of the pixels.

The image store has two layouts: `decoded`, the pixels themselves, and `encoded`, a JPEG of them.

Decoded rows are copied into a batch as they are. Encoded ones take a fraction of the disk, for sets that are too large to
hold decoded, and are decoded again each time they are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.config import StoreConfig
from pipelines.contracts import StoreLayout

# At 160 px a pixel of a photo is off by 1.4 of 255 on average and by 17 at most, in a fifth of the bytes; 97 takes a quarter
# more for 1.0 (docs/decisions/0010-the-image-store.md).
JPEG_QUALITY = 95
# Colours are not subsampled: that saves a sixth of the bytes, and pixels at the edges of colours are then off by 60.
_JPEG_OPTIONS: Sequence[int] = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


class ShardRows(Protocol):
    """The image column of one memory-mapped shard."""

    def read(self, row: int, out: NDArray[Any]) -> None:
        """Writes a row into `out`, a contiguous array of the rows' shape and dtype.

        Raises:
            ValueError: the row holds nothing of that shape.
        """


class ArrayRows:
    """Rows of numbers, as a view of the mapped file."""

    def __init__(self, column: pa.FixedSizeBinaryArray, *, shape: tuple[int, ...], dtype: Any) -> None:
        numbers = np.frombuffer(column.buffers()[1], dtype, count=len(column) * math.prod(shape))
        self._rows = numbers.reshape(len(column), *shape)

    def read(self, row: int, out: NDArray[Any]) -> None:
        """A copy."""
        out[:] = self._rows[row]


class EncodedRows:
    """Rows of JPEG files, as a view of the mapped file."""

    def __init__(self, column: pa.BinaryArray) -> None:
        _, ends, contents = column.buffers()
        self._ends = np.frombuffer(ends, np.int32)
        self._contents = np.frombuffer(contents, np.uint8)

    def read(self, row: int, out: NDArray[np.uint8]) -> None:
        """Decodes; lets go of the interpreter's lock meanwhile."""
        decoded = cv2.imdecode(self._contents[self._ends[row] : self._ends[row + 1]], cv2.IMREAD_COLOR)
        if decoded is None or decoded.shape != out.shape:
            raise ValueError(f"row {row} is no image of {out.shape[1]} px")
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=out)


def row_type(layout: StoreLayout, *, image_size: int) -> pa.DataType:
    """The Arrow type of the image column."""
    return pa.binary(image_size * image_size * 3) if layout == "decoded" else pa.binary()


def open_rows(column: pa.Array, *, layout: StoreLayout, image_size: int) -> ShardRows:
    """The image column of a shard, ready to be read by row."""
    if layout == "decoded":
        return ArrayRows(column, shape=(image_size, image_size, 3), dtype=np.uint8)
    return EncodedRows(column)


def pack_row(pixels: NDArray[np.uint8], *, layout: StoreLayout) -> bytes | memoryview:
    """The bytes that are stored of an image uint8 [S, S, 3], RGB; of a decoded row a view, no copy."""
    if layout == "decoded":
        return np.ascontiguousarray(pixels).reshape(-1).data
    encoded, contents = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
    if not encoded:
        raise ValueError(f"`pixels` can't be encoded as JPEG; received {pixels.dtype} {pixels.shape}")
    return contents.tobytes()


def choose_layout(config: StoreConfig, *, images: int, image_size: int) -> tuple[StoreLayout, str]:
    """The layout that a recipe asks for, or with `auto` the one that suits the disk budget, and a line that says so.

    Args:
        config: of the store.
        images: how many images are needed.
        image_size: side of the square images, px.
    """
    decoded_gib = images * image_size * image_size * 3 / 2**30
    fits = decoded_gib <= config.budget_gib
    layout: StoreLayout = ("decoded" if fits else "encoded") if config.layout == "auto" else config.layout
    compared = "within" if fits else "more than"
    reason = f"{compared} `store.budget_gib` ({config.budget_gib:g})" if config.layout == "auto" else "as `store.layout` says"
    size = f"{decoded_gib:.1f} GiB" if decoded_gib >= 1 else f"{decoded_gib * 2**10:.1f} MiB"
    return layout, f"layout {layout}: {images:,} images of {image_size} px are {size} of pixels, {reason}"
