"""Draws images and encodes them in every format, mode and orientation that the tests need. Imports no TensorFlow."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Array = np.ndarray[Any, np.dtype[Any]]
ORIENTATIONS = range(1, 9)


def draw_photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image of smooth random colours with finer detail on them: compressible, and unlike any other seed's."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, weight in ((4, 0.7), (12, 0.3)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's own name for it
    """The file that Pillow writes for `image`; `options` go to `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_block(orientation: int, *, order: str = "<", kind: int = 3, ifd_offset: int = 8) -> bytes:
    """A TIFF block whose IFD0 holds a width, an orientation of type `kind` (3 SHORT, 4 LONG) and a software tag."""
    value = struct.pack(order + ("H2x" if kind == 3 else "I"), orientation)
    entries = struct.pack(order + "HHI", 0x0100, 4, 1) + struct.pack(order + "I", 640)
    entries += struct.pack(order + "HHI", 0x0112, kind, 1) + value
    entries += struct.pack(order + "HHI", 0x0131, 2, 3) + b"me\0\0"
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, ifd_offset)
    return head.ljust(ifd_offset, b"\0") + struct.pack(order + "H", 3) + entries + struct.pack(order + "I", 0)


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    """A marker segment of a JPEG file: 0xFF, `marker`, length, payload."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def exif_segment(tiff: bytes) -> bytes:
    """The APP1 segment that holds the TIFF block `tiff`."""
    return jpeg_segment(0xE1, b"Exif\0\0" + tiff)


def insert_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Puts segments directly behind the SOI marker of a JPEG file."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png_chunk(name: bytes, payload: bytes) -> bytes:
    """A chunk of a PNG file: length, name, payload, CRC."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def insert_chunk(png: bytes, chunk: bytes, *, before: bytes = b"IDAT") -> bytes:
    """Puts a chunk before the first chunk that is named `before`."""
    at = png.index(before) - 4
    return png[:at] + chunk + png[at:]


def write_png(rows: Array, *, bit_depth: int, color_type: int, chunks: bytes = b"") -> bytes:
    """A PNG of packed rows (uint8 [H, bytes per row]); `color_type` 0 grey, 2 RGB, 3 palette, 4 grey+alpha, 6 RGBA."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    width = rows.shape[1] * 8 // (bit_depth * channels)
    header = struct.pack(">IIBBBBB", width, rows.shape[0], bit_depth, color_type, 0, 0, 0)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # a filter byte 0 ahead of each row
    data = zlib.compress(filtered.astype(np.uint8).tobytes())
    body = png_chunk(b"IHDR", header) + chunks + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_png16(pixels: Array) -> bytes:
    """A 16-bit PNG of uint16 [H, W, C], C = 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA."""
    rows = pixels.astype(">u2").reshape(pixels.shape[0], -1).view(np.uint8)
    return write_png(rows, bit_depth=16, color_type={1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]])


def write_bmp(
    width: int, height: int, bits: int, rows: bytes, *, compression: int = 0, header_bytes: int = 40, table: bytes = b""
) -> bytes:
    """A BMP of finished rows; a negative height stores them from the top; `header_bytes` 12 makes an OS/2 file."""
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", header_bytes, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
        header = header.ljust(header_bytes, b"\0")
    offset = 14 + len(header) + len(table)
    return struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + header + table + rows


def bmp_rows(pixels: Array) -> bytes:
    """Rows of whole bytes (uint8 [H, bytes]) padded to multiples of four bytes, as BMP wants them."""
    return np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % 4))).tobytes()


def pillow_upright(contents: bytes) -> Array:
    """The reference for every decoder: Pillow's first frame, EXIF applied, 16 bits to the high byte, alpha dropped."""
    with Image.open(io.BytesIO(contents)) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        high_byte = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(high_byte[:, :, None], 3, axis=2)
    image.info.pop("transparency", None)  # else Pillow warns about a palette whose transparency is in bytes
    return np.asarray(image.convert("RGB"))


def _jpegs(photo: Image.Image) -> dict[str, bytes]:
    cmyk = encode(photo.convert("CMYK"), "JPEG", quality=92)
    adobe = cmyk.index(b"Adobe") - 4
    rgb = encode(photo, "JPEG", quality=92)
    return {
        "jpeg_rgb": rgb,
        "jpeg_444": encode(photo, "JPEG", quality=92, subsampling=0),
        "jpeg_progressive": encode(photo, "JPEG", quality=92, progressive=True),
        "jpeg_restarts": encode(photo, "JPEG", quality=92, restart_marker_rows=1),
        "jpeg_grey": encode(photo.convert("L"), "JPEG", quality=92),
        "jpeg_cmyk": cmyk,
        "jpeg_ycck": cmyk[: adobe + 15] + b"\x02" + cmyk[adobe + 16 :],  # the byte that names the colour transform
        **{f"jpeg_exif{o}": insert_segments(rgb, exif_segment(exif_block(o))) for o in ORIENTATIONS},
    }


def _pngs(photo: Image.Image) -> dict[str, bytes]:
    rgb = np.asarray(photo)
    rng = np.random.default_rng(5)
    deep = rgb.astype(np.uint16) * 256 + rng.integers(0, 256, rgb.shape, dtype=np.uint16)
    alpha = photo.convert("L").rotate(90).resize(photo.size)
    palette = photo.quantize(60)
    grey = np.asarray(photo.convert("L"))
    two_bit = (grey[:, 0::4] >> 6) << 6 | (grey[:, 1::4] >> 6) << 4 | (grey[:, 2::4] >> 6) << 2 | grey[:, 3::4] >> 6
    four_bit = (grey[:, 0::2] >> 4) << 4 | grey[:, 1::2] >> 4
    upright = encode(photo, "PNG")
    return {
        "png_rgb": upright,
        "png_grey": encode(photo.convert("L"), "PNG"),
        "png_grey_alpha": encode(Image.merge("LA", [photo.convert("L"), alpha]), "PNG"),
        "png_rgba": encode(Image.merge("RGBA", [*photo.split(), alpha]), "PNG"),
        "png_palette": encode(palette, "PNG"),
        "png_palette_trns": encode(palette, "PNG", transparency=bytes(range(60))),
        "png_grey_trns": encode(photo.convert("L"), "PNG", transparency=int(grey[0, 0])),
        "png_rgb_trns": encode(photo, "PNG", transparency=photo.getpixel((0, 0))),
        "png_1bit": encode(photo.convert("1"), "PNG"),
        "png_2bit": write_png(two_bit, bit_depth=2, color_type=0),
        "png_4bit": write_png(four_bit, bit_depth=4, color_type=0),
        "png_grey16": write_png16(deep[:, :, :1]),
        "png_grey_alpha16": write_png16(deep[:, :, :2]),
        "png_rgb16": write_png16(deep),
        "png_rgba16": write_png16(np.concatenate([deep, deep[:, :, :1]], axis=2)),
        **{f"png_exif{o}": insert_chunk(upright, png_chunk(b"eXIf", exif_block(o))) for o in ORIENTATIONS},
    }


def _bmps(photo: Image.Image) -> dict[str, bytes]:
    width, height = photo.size
    bgr = np.asarray(photo)[:, :, ::-1]
    red, green, blue = (np.asarray(photo)[:, :, channel].astype(np.uint16) >> 3 for channel in range(3))
    five_bits = (red << 10 | green << 5 | blue).astype("<u2")
    run_lengths = b"".join(bytes([width, row]) + b"\0\0" for row in range(height)) + b"\0\1"  # one run per row
    table = np.pad(np.random.default_rng(6).integers(0, 256, (256, 3)), ((0, 0), (0, 1))).astype(np.uint8).tobytes()
    down = bmp_rows(bgr.reshape(height, -1))
    up = bmp_rows(bgr[::-1].reshape(height, -1))
    masks = struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00)
    wide = np.pad(bgr[::-1], ((0, 0), (0, 0), (1, 0))).tobytes()
    return {
        "bmp_24": encode(photo, "BMP"),
        "bmp_32": encode(photo.convert("RGBA"), "BMP"),
        "bmp_top_down": write_bmp(width, -height, 24, down),
        "bmp_v5": write_bmp(width, height, 24, up, header_bytes=124),
        "bmp_8_grey": encode(photo.convert("L"), "BMP"),
        "bmp_8_palette": encode(photo.quantize(60), "BMP"),
        "bmp_1": encode(photo.convert("1"), "BMP"),
        "bmp_16": write_bmp(width, height, 16, bmp_rows(five_bits[::-1].view(np.uint8))),
        "bmp_masks": write_bmp(width, height, 32, wide, compression=3, table=masks),
        "bmp_rle": write_bmp(width, height, 8, run_lengths, compression=1, table=table),
        "bmp_os2": write_bmp(width, height, 24, up, header_bytes=12),
    }


@functools.cache
def variants(width: int = 40, height: int = 28) -> dict[str, bytes]:
    """One photo (`width` a multiple of 8) as a file of every kind: `jpeg_*`, `png_*`, `gif_*`, `bmp_*`, `webp_*`.

    `*_exif1` to `*_exif8` carry that orientation. Pixels differ between files whose formats can't hold the same ones.
    """
    photo = draw_photo(width, height, seed=1)
    frames = [draw_photo(width, height, seed=seed).quantize(60) for seed in (2, 3)]
    exif = {o: b"Exif\0\0" + exif_block(o) for o in (6, 8)}
    return {
        **_jpegs(photo),
        **_pngs(photo),
        "gif_palette": encode(photo.quantize(60), "GIF"),
        "gif_grey": encode(photo.convert("L"), "GIF"),
        "gif_interlaced": encode(photo.quantize(60), "GIF", interlace=1),
        "gif_animated": encode(photo.quantize(60), "GIF", save_all=True, append_images=frames, duration=50),
        **_bmps(photo),
        "webp_lossy": encode(photo, "WEBP"),
        "webp_lossless": encode(photo, "WEBP", lossless=True),
        "webp_rgba": encode(photo.convert("RGBA"), "WEBP", lossless=True),
        "webp_animated": encode(photo, "WEBP", save_all=True, append_images=[f.convert("RGB") for f in frames]),
        **{f"webp_exif{o}": encode(photo, "WEBP", lossless=True, exif=block) for o, block in exif.items()},
    }
