"""What the structure of an image file tells before a pixel is decoded: its size, and whether it is whole.

Pillow takes a PNG that lacks its last 20 bytes and a GIF that lacks its last 2; TensorFlow takes neither. And its GIF and
WebP plugins set up a whole canvas before anyone can ask how large it is.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from pipelines.errors import ImageDecodeError

_FOREIGN_SIGNATURES = (
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG 2000", 4, b"jP  "),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("AVIF", 4, b"ftypavi"),
    ("HEIC", 4, b"ftyphei"),
    ("HEIC", 4, b"ftypmif1"),
    ("ICO", 0, b"\0\0\1\0"),
    ("PSD", 0, b"8BPS"),
    ("PDF", 0, b"%PDF"),
    ("SVG", 0, b"<svg"),
    ("EXR", 0, b"\x76\x2f\x31\x01"),
    ("DDS", 0, b"DDS "),
    ("QOI", 0, b"qoif"),
    *((("PNM", 0, b"P%d\n" % number)) for number in range(1, 7)),
)


@dataclass(frozen=True)
class Canvas:
    """Size of an image as its header says it, in px as stored, and how many frames follow."""

    width_px: int
    height_px: int
    frames: int


def name_foreign_format(contents: bytes) -> str | None:
    """The name of a known image format that is not read here, by the first bytes of a file; None for anything else."""
    for name, position, signature in _FOREIGN_SIGNATURES:
        if contents.startswith(signature, position):
            return name
    return None


def check_png(contents: bytes) -> None:
    """Follows all chunks of a PNG file to its end and compares their checksums.

    Raises:
        ImageDecodeError: a chunk is cut off, missing or damaged.
    """
    data = memoryview(contents)
    position, name = 8, b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise ImageDecodeError("truncated PNG: it ends before its IEND chunk")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageDecodeError(f"truncated PNG: {end - len(data)} bytes are missing in chunk {_show(name)}")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageDecodeError(f"damaged PNG: wrong checksum of chunk {_show(name)} at byte {position}")
        position = end


def measure_gif(contents: bytes) -> Canvas:
    """Follows all blocks of a GIF file to its end; the canvas is its screen, or the first frame where that reaches further.

    Raises:
        ImageDecodeError: a block is cut off or of an unknown kind, or there is no frame.
    """
    try:
        width, height, flags = struct.unpack_from("<HHB", contents, 6)
        frames, position = 0, 13 + _table_bytes(flags)
        while (kind := contents[position]) != 0x3B:
            if kind == 0x2C:
                left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", contents, position + 1)
                if not frames:
                    right, bottom = left + frame_width, top + frame_height
                    if (left or top) and (right > width or bottom > height):
                        raise ImageDecodeError("damaged GIF: its first frame reaches over the edge of its screen")
                    width, height = max(width, right), max(height, bottom)
                frames += 1
                position = _skip_sub_blocks(contents, position + 11 + _table_bytes(flags))
            elif kind == 0x21:
                position = _skip_sub_blocks(contents, position + 2)
            else:
                raise ImageDecodeError(f"damaged GIF: unknown block 0x{kind:02x} at byte {position}")
    except (IndexError, struct.error) as error:
        raise ImageDecodeError("truncated GIF: it ends before its last block") from error
    if not frames:
        raise ImageDecodeError("damaged GIF: it holds no frame")
    return Canvas(width, height, frames)


def measure_webp(contents: bytes) -> Canvas:
    """Reads the size of a WebP file's canvas; frames are left at 1.

    Raises:
        ImageDecodeError: the file is shorter than its header says, or starts with an unknown chunk.
    """
    if len(contents) < 30 or len(contents) < int.from_bytes(contents[4:8], "little") + 8:
        raise ImageDecodeError("truncated WEBP: it is shorter than its header says")
    kind = contents[12:16]
    if kind == b"VP8X":
        return Canvas(1 + int.from_bytes(contents[24:27], "little"), 1 + int.from_bytes(contents[27:30], "little"), 1)
    if kind == b"VP8L":
        bits = int.from_bytes(contents[21:25], "little")
        return Canvas(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", contents, 26)
        return Canvas(width & 0x3FFF, height & 0x3FFF, 1)
    raise ImageDecodeError(f"damaged WEBP: unknown first chunk {_show(kind)}")


def _table_bytes(flags: int) -> int:
    """Size of the colour table that the flags of a GIF's screen or frame announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(contents: bytes, position: int) -> int:
    while contents[position]:
        position += contents[position] + 1
    return position + 1


def _show(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
