"""Image files read by Pillow alone: for a first look at every file, and for formats that only training can read.

A file is told by its first bytes and handed straight to the one plugin that is its own. `Image.open` would let any of forty
try, take two-image JPEGs for another format, and warn of large images, which can't be silenced in one thread only.
"""

from __future__ import annotations

import io
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipelines.errors import ImageDecodeError


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF data is left alone: Pillow would search it for a resolution, and warn where it is damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


_PLUGINS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": _JpegFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "WEBP": WebPImageFile,
}
FORMATS: Final = tuple(_PLUGINS)
_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def identify_format(contents: bytes) -> str | None:
    """The one of `FORMATS` that the first bytes of a file announce, or None."""
    signatures = (("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("GIF", b"GIF8"), ("BMP", b"BM"))
    for name, signature in signatures:
        if contents.startswith(signature):
            return name
    return "WEBP" if contents[:4] == b"RIFF" and contents[8:12] == b"WEBP" else None


def open_image(contents: bytes, image_format: str) -> ImageFile:
    """Reads the header; the pixels are decoded when they are asked for. Thread-safe, and changes no state of Pillow's.

    Args:
        contents: the whole file.
        image_format: one of `FORMATS`, as `identify_format` told.

    Raises:
        Exception: Pillow's plugins raise errors of many kinds for damaged files.
    """
    return _PLUGINS[image_format](io.BytesIO(contents))


def exif_orientation(image: ImageFile) -> int:
    """Orientation 1..8 in the EXIF data that Pillow found in a file; 1 where there is none or it is damaged.

    The rules are those of the graph in `pipelines.data.orientation`. Pillow's own parser warns of damage, and looks at XMP.
    """
    exif = image.info.get("exif", b"")
    return tiff_orientation(exif.removeprefix(b"Exif\0\0")) if isinstance(exif, bytes) else 1


def tiff_orientation(tiff: bytes) -> int:
    """Orientation 1..8 in the first directory of a TIFF block; 1 where there is none or it is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    count = struct.unpack_from(order + "H", tiff, start)[0] if start + 2 <= len(tiff) else 0
    orientation = 1
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", tiff, entry)
        if tag == 0x0112 and kind in (3, 4) and values == 1:
            (orientation,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, entry + 8)
    return orientation if 1 <= orientation <= 8 else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns and mirrors an image by an EXIF orientation 1..8."""
    return image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image


def decode_upright_pillow(contents: bytes) -> NDArray[np.uint8]:
    """Decodes an image file as the graph in `pipelines.data.decode` does, for the files that TensorFlow can't read.

    The first frame, EXIF orientation applied, 16-bit samples cut to their high byte, alpha dropped.

    Args:
        contents: the whole file, of one of `FORMATS`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ImageDecodeError: the file is damaged, or of another format.
    """
    image_format = identify_format(contents)
    if image_format is None:
        raise ImageDecodeError(f"not an image of a format that can be read ({', '.join(FORMATS)})")
    try:
        with open_image(contents, image_format) as image:
            image.load()
            return np.asarray(convert_to_rgb(turn_upright(image, exif_orientation(image))))
    except Exception as error:  # Pillow's plugins raise errors of many kinds for damaged files
        raise ImageDecodeError(f"unreadable: {describe_error(error)}") from error


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image in any mode, alpha dropped; 16-bit grey keeps its high byte (Pillow would clip it)."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # else Pillow warns about palettes whose transparency is a byte string
    return image.convert("RGB")


def describe_error(error: Exception) -> str:
    """Pillow's own words on one line, or the kind of the error where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
