"""The first look at a file: is it a whole image, which one, and what does it look like? Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

import imagehash
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipelines.config import SplitConfig
from pipelines.errors import ImageDecodeError
from pipelines.sources.containers import check_png, measure_gif, measure_webp, name_foreign_format
from pipelines.sources.pillow import (
    FORMATS,
    convert_to_rgb,
    decode_upright_pillow,
    describe_error,
    exif_orientation,
    identify_format,
    open_image,
    turn_upright,
)

# Part of the name under which outcomes are kept in the home: bumped whenever `examine_image` would say something else of
# the same bytes; tests/stage_versions.json guards it.
EXAMINE_VERSION: Final = 1

# Images whose 256-bit hashes differ in at most this many bits count as near-equal, unless a recipe says otherwise.
#
# Copies stay below it. Of 700 photos (100-500 px wide), the 99th percentile of the distance to a copy was: JPEG of quality
# 60 4 bits, half the size 8, PNG 8, WebP 10, 10% brighter 12; 20% brighter went above for 4%. At 32x32 px (1,500 images of
# CIFAR-10) above were: quality 60 2%, WebP 4%, half the size 38%.
# Other images stay above it. Within it were 28 pairs of all 60,000 images of CIFAR-10, each by eye one picture twice; 70
# of all 70,000 of Fashion-MNIST, one garment or two of one cut; 1 of 1,399 cats and dogs, one picture, and the next was
# at 86 bits. scikit-learn's 1,797 digits set the limit: enlarged to 32 px, their closest pair is at 18.
NEAR_EQUAL_BITS: Final = SplitConfig().near_equal_bits

# The 16 x 16 lowest frequencies of the image at 64 x 64 px. With 64 bits in place of 256, different digits are 2 bits apart.
_HASH_SIDE = 16
_HASH_PIXELS = 64
# JPEGs are decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that keeps this many pixels each way: 0.4 ms in place of 0.75 for
# 500x375, and 2 bits off in the median. Twice as coarse would be 6 bits off.
_DRAFT_PIXELS = 128
_FEWEST_BITS = 48  # real images have 120 to 128 of 256 set
# Pillow's words for a JPEG that ends before its pixels begin: without a size, or with one.
_NO_PIXELS = ("not identified by this driver", "cannot load this image")


@dataclass(frozen=True)
class ImageFacts:
    """What one file holds.

    Attributes:
        format: JPEG, PNG, GIF, BMP or WEBP.
        width_px: of the upright image, EXIF orientation applied.
        height_px: of the upright image.
        mode: Pillow's name of the stored pixels: RGB, L, P, CMYK, I;16, ...
        orientation: EXIF orientation, 1..8.
        frames: how many the file holds; only the first is used.
        perceptual_hash: 64 hexadecimal digits; see `NEAR_EQUAL_BITS`.
    """

    format: str
    width_px: int
    height_px: int
    mode: str
    orientation: int
    frames: int
    perceptual_hash: str


def examine_image(contents: bytes, *, max_pixels: int) -> ImageFacts:
    """Reads an image file to its end, so that damage and truncation show. Thread-safe.

    Args:
        contents: the whole file.
        max_pixels: width times height above this is refused by the header alone, before anything is decoded.

    Raises:
        ImageDecodeError: the message is the reason: an empty file, not an image, a format that is not read, too many
            pixels, truncated, damaged, unreadable.
    """
    image_format = identify_format(contents)
    if image_format is None:
        raise ImageDecodeError(_explain_unknown(contents))
    try:
        return _examine(contents, image_format, max_pixels)
    except (ImageDecodeError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise errors of many kinds for damaged files
        raise ImageDecodeError(_explain_failure(image_format, error)) from error


def _examine(contents: bytes, image_format: str, max_pixels: int) -> ImageFacts:
    frames = 1
    if image_format in ("GIF", "WEBP"):
        canvas = (measure_gif if image_format == "GIF" else measure_webp)(contents)
        _check_pixels(canvas.width_px, canvas.height_px, max_pixels)
        frames = canvas.frames
    with open_image(contents, image_format) as image:
        width, height = image.size
        _check_pixels(width, height, max_pixels)
        if image_format == "PNG":
            check_png(contents)
        mode = image.mode
        if isinstance(image, JpegImageFile):
            image.draft("L", (_DRAFT_PIXELS, _DRAFT_PIXELS))
        image.load()
        orientation = exif_orientation(image)
        if image_format != "GIF":
            frames = getattr(image, "n_frames", 1)
        small = _shrink_grey(image)
    if orientation >= 5:
        width, height = height, width
    fingerprint = _hash_grey(turn_upright(small, orientation))
    return ImageFacts(
        format=image_format,
        width_px=width,
        height_px=height,
        mode=mode,
        orientation=orientation,
        frames=frames,
        perceptual_hash=fingerprint or _hash_pixels(contents),
    )


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageDecodeError(f"over the pixel limit: {width}x{height} = {width * height} > {max_pixels} px")


def _shrink_grey(image: Image.Image) -> Image.Image:
    grey = image if image.mode == "L" else convert_to_rgb(image).convert("L")
    # Lanczos keeps images apart that bilinear does not: the closest pair of digits differs in 18 bits against 7.
    # The gap lets Pillow average pixels first: 4 ms in place of 40 for 4000x3000.
    return grey.resize((_HASH_PIXELS, _HASH_PIXELS), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _hash_grey(grey: Image.Image) -> str | None:
    """The perceptual hash, or None for flat and very regular pictures, most of whose frequencies are exactly zero.

    In a hash of any other picture half the bits are set. The hashes of flat images of any grey are equal, and those of
    stripes of any width differ in 6 bits in the median.
    """
    bits = imagehash.phash(grey, hash_size=_HASH_SIDE, highfreq_factor=_HASH_PIXELS // _HASH_SIDE)
    return str(bits) if np.count_nonzero(bits.hash) >= _FEWEST_BITS else None


def _hash_pixels(contents: bytes) -> str:
    """A digest as long as the hash: such pictures are near-equal only where all their pixels are equal."""
    pixels = decode_upright_pillow(contents)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=_HASH_SIDE**2 // 8)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _explain_unknown(contents: bytes) -> str:
    if not contents:
        return "empty file (0 bytes)"
    if foreign := name_foreign_format(contents):
        return f"{foreign} is not a supported format ({', '.join(FORMATS)})"
    return f"not an image (it starts with {contents[:12]!r})"


def _explain_failure(image_format: str, error: Exception) -> str:
    reason = describe_error(error)
    ends_early = isinstance(error.__cause__ or error, (struct.error, IndexError, EOFError))
    if ends_early or (image_format == "JPEG" and reason in _NO_PIXELS):
        return f"truncated {image_format}: it ends within its header"
    return f"truncated {image_format}: {reason}" if "truncated" in reason.lower() else f"unreadable: {reason}"
