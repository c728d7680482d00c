"""The first look at a file: facts, refusals with their reasons, damage, threads, and what counts as near-equal."""

from __future__ import annotations

import functools
import itertools
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from sklearn.datasets import load_digits

from pipelines.errors import ImageDecodeError
from pipelines.sources.examine import NEAR_EQUAL_BITS, ImageFacts, examine_image
from tests.images import (
    draw_photo,
    encode,
    exif_block,
    exif_segment,
    insert_chunk,
    insert_segments,
    png_chunk,
    variants,
    write_png,
)

examine = functools.partial(examine_image, max_pixels=1_000_000)


def hash_of(image: Image.Image, image_format: str = "PNG", **options: Any) -> str:
    return examine(encode(image, image_format, **options)).perceptual_hash


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def nearest(images: list[Image.Image], image_format: str = "PNG") -> int:
    """The smallest distance among all pairs."""
    hashes = [hash_of(image, image_format) for image in images]
    codes = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    return min(int(np.bitwise_count(codes[i + 1 :] ^ codes[i]).sum(axis=1).min()) for i in range(len(codes) - 1))


@pytest.mark.parametrize("name", sorted(variants()))
def test_facts(name: str) -> None:
    facts = examine(variants()[name])
    orientation = int(name[-1]) if "exif" in name else 1
    assert facts.format == name.split("_", maxsplit=1)[0].upper()
    assert facts.orientation == orientation
    assert (facts.width_px, facts.height_px) == ((28, 40) if orientation >= 5 else (40, 28))
    assert facts.frames == (3 if "animated" in name else 1)
    assert len(facts.perceptual_hash) == 64


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("jpeg_rgb", "RGB"),
        ("jpeg_grey", "L"),
        ("jpeg_cmyk", "CMYK"),
        ("png_palette", "P"),
        ("png_grey_alpha", "LA"),
        ("png_rgba", "RGBA"),
        ("png_1bit", "1"),
        ("png_grey16", "I;16"),
    ],
)
def test_mode_is_the_stored_one(name: str, mode: str) -> None:
    assert examine(variants()[name]).mode == mode


def test_two_image_jpeg_is_a_jpeg() -> None:
    photo = draw_photo(60, 40)
    assert examine(encode(photo, "MPO", save_all=True, append_images=[photo])).format == "JPEG"


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", r"^empty file \(0 bytes\)$"),
        (b"this is text", r"^not an image \(it starts with b'this is text'\)$"),
        (b"\xff\xd8", r"^not an image"),
        (encode(draw_photo(9, 9), "TIFF"), r"^TIFF is not a supported format \(JPEG, PNG, GIF, BMP, WEBP\)$"),
        (encode(draw_photo(9, 9), "JPEG2000"), r"^JPEG 2000 is not a supported format"),
        (encode(draw_photo(9, 9), "AVIF"), r"^AVIF is not a supported format"),
        (encode(draw_photo(32, 32), "ICO"), r"^ICO is not a supported format"),
        (encode(draw_photo(9, 9), "PPM"), r"^PNM is not a supported format"),
        (b"\xff\x0a" + bytes(30), r"^JPEG XL is not a supported format"),
        (b"%PDF-1.7 ...", r"^PDF is not a supported format"),
        (b"BM" + bytes(60), r"^unreadable: "),
        (b"GIF88a" + variants()["gif_palette"][6:], r"^unreadable: "),
        (b"\xff\xd8\xff", r"^truncated JPEG: it ends within its header$"),
        (b"\xff\xd8\xff\xd9", r"^truncated JPEG: it ends within its header$"),
        (b"RIFF\x10\0\0\0WEBPVP9 " + bytes(30), r"^damaged WEBP: unknown first chunk VP9"),
    ],
)
def test_reasons(contents: bytes, reason: str) -> None:
    with pytest.raises(ImageDecodeError, match=reason):
        examine(contents)


@pytest.mark.parametrize(
    "name",
    [
        *("jpeg_rgb", "jpeg_progressive", "jpeg_restarts", "jpeg_exif6", "png_rgb", "png_palette_trns", "png_exif6"),
        *("gif_palette", "gif_animated", "bmp_24", "bmp_8_palette", "webp_lossy", "webp_lossless", "webp_animated"),
    ],
)
def test_truncation_anywhere_is_noticed(name: str) -> None:
    contents = variants()[name]
    for length in [*range(0, len(contents), 7), *range(len(contents) - 24, len(contents))]:
        with pytest.raises(ImageDecodeError, match=r"^(truncated|empty|not an image|unreadable)"):
            examine(contents[:length])


@pytest.mark.parametrize("name", ["jpeg_rgb", "jpeg_progressive", "jpeg_exif6"])
def test_a_jpeg_that_ends_within_its_header_is_truncated(name: str) -> None:
    contents = variants()[name]
    for length in range(3, contents.index(b"\xff\xda") + 12):
        with pytest.raises(ImageDecodeError, match=r"^truncated JPEG: "):
            examine(contents[:length])


@pytest.mark.parametrize("name", ["jpeg_rgb", "jpeg_progressive", "png_rgb", "gif_palette"])
def test_zeros_in_place_of_the_rest_are_noticed(name: str) -> None:
    contents = variants()[name]
    for length in range(len(contents) // 3, len(contents) - 20, 50):
        with pytest.raises(ImageDecodeError):
            examine(contents[:length] + bytes(len(contents) - length))


def test_damaged_checksum_of_a_png() -> None:
    contents = bytearray(variants()["png_rgb"])
    contents[-20] ^= 1
    with pytest.raises(ImageDecodeError, match=r"^damaged PNG: wrong checksum of chunk IDAT at byte 33$"):
        examine(bytes(contents))


def test_damaged_block_of_a_gif() -> None:
    contents = variants()["gif_palette"]
    with pytest.raises(ImageDecodeError, match=r"^damaged GIF: unknown block 0x41 at byte"):
        examine(contents[:-1] + b"A" + contents[-1:])
    with pytest.raises(ImageDecodeError, match=r"^damaged GIF: it holds no frame$"):
        examine(contents[:10] + b"\0\0\0;")


def test_frame_of_a_gif_that_tensorflow_would_cut_off() -> None:
    contents = bytearray(variants()["gif_palette"])
    contents[contents.index(b"\x2c\0\0\0\0") + 1] = 5  # px from the left
    with pytest.raises(ImageDecodeError, match=r"^damaged GIF: its first frame reaches over the edge of its screen$"):
        examine(bytes(contents))


def test_damaged_exif_data_is_no_matter() -> None:
    for length in range(len(exif_block(6))):
        block = exif_block(6)[:length]
        assert examine(insert_segments(variants()["jpeg_rgb"], exif_segment(block))).orientation in (1, 6)
        assert examine(insert_chunk(variants()["png_rgb"], png_chunk(b"eXIf", block))).orientation in (1, 6)


def claim_size(name: str, width: int, height: int) -> bytes:
    """The variant `name` with another size in its header."""
    contents = bytearray(variants()[name])
    if name.startswith("png"):
        contents[16:24] = struct.pack(">II", width, height)
        contents[29:33] = struct.pack(">I", zlib.crc32(contents[12:29]))
    elif name.startswith("gif"):
        contents[6:10] = struct.pack("<HH", width, height)
    elif name.startswith("bmp"):
        contents[18:26] = struct.pack("<ii", width, height)
    elif name == "webp_lossy":
        contents[26:30] = struct.pack("<HH", width, height)
    elif name == "webp_lossless":
        contents[21:25] = struct.pack("<I", width - 1 | height - 1 << 14)
    elif name == "webp_animated":
        contents[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    else:
        start = contents.index(b"\xff\xc0") + 5
        contents[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(contents)


@pytest.mark.parametrize(
    "name", ["jpeg_rgb", "png_rgb", "gif_palette", "bmp_24", "webp_lossy", "webp_lossless", "webp_animated"]
)
def test_pixel_limit_is_decided_by_the_header(name: str) -> None:
    width, height = (16_000, 16_000) if name.startswith("webp") else (60_000, 50_000)
    with pytest.raises(ImageDecodeError, match=rf"^over the pixel limit: {width}x{height} = \d+ > 1000000 px$"):
        examine(claim_size(name, width, height))


def test_pixel_limit_holds_for_the_first_frame_of_a_gif() -> None:
    contents = bytearray(variants()["gif_palette"])
    start = contents.index(b"\x2c\0\0\0\0")
    contents[start + 5 : start + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageDecodeError, match=r"^over the pixel limit: 60000x60000"):
        examine(bytes(contents))


def test_images_at_the_limit_are_read() -> None:
    assert examine_image(variants()["png_rgb"], max_pixels=40 * 28).width_px == 40
    with pytest.raises(ImageDecodeError, match=r"^over the pixel limit: 40x28 = 1120 > 1119 px$"):
        examine_image(variants()["png_rgb"], max_pixels=40 * 28 - 1)


def test_threads_see_what_one_thread_sees() -> None:
    def look(contents: bytes) -> ImageFacts | str:
        try:
            return examine(contents)
        except ImageDecodeError as error:
            return str(error)

    files = [contents for full in variants().values() for contents in (full, full[: len(full) // 2])] * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, files)) == list(map(look, files))


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_near_equal(seed: int) -> None:
    photo = draw_photo(300, 200, seed=seed)
    original = hash_of(photo, "JPEG", quality=95)
    copies = {
        "worse JPEG": hash_of(photo, "JPEG", quality=60),
        "PNG": hash_of(photo),
        "WebP": hash_of(photo, "WEBP"),
        "half the size": hash_of(photo.resize((150, 100))),
        "brighter": hash_of(ImageEnhance.Brightness(photo).enhance(1.05)),
        "grey": hash_of(photo.convert("L"), "JPEG"),
    }
    for name, copy in copies.items():
        assert distance(original, copy) <= NEAR_EQUAL_BITS, name


def test_rotated_copies_are_near_equal_once_upright() -> None:
    photo = draw_photo(300, 200, seed=1)
    turned = encode(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)
    upright = insert_segments(turned, exif_segment(exif_block(6)))
    assert distance(hash_of(photo), examine(upright).perceptual_hash) <= NEAR_EQUAL_BITS
    assert distance(hash_of(photo), examine(turned).perceptual_hash) > 3 * NEAR_EQUAL_BITS


def test_other_photos_are_not_near_equal() -> None:
    assert nearest([draw_photo(120, 90, seed=seed) for seed in range(60)], "JPEG") > 3 * NEAR_EQUAL_BITS


def test_different_digits_are_not_near_equal() -> None:
    images = [Image.fromarray((digit * 255 / 16).astype(np.uint8)) for digit in load_digits().images]
    assert nearest([image.resize((32, 32), Image.Resampling.NEAREST) for image in images]) > NEAR_EQUAL_BITS


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_flat_and_regular_images_are_near_equal_only_to_themselves(image_format: str) -> None:
    flat = [Image.new("RGB", (60, 40), colour) for colour in ("black", "white", "grey", "red", "#f00000", "blue")]
    position = np.arange(128)
    stripes = [Image.fromarray(np.tile(position // width % 2 * 255, (128, 1)).astype(np.uint8)) for width in range(1, 20)]
    rings = []
    for radius in range(5, 60, 5):
        rings.append(Image.new("L", (128, 128)))
        ImageDraw.Draw(rings[-1]).ellipse([64 - radius, 64 - radius, 64 + radius, 64 + radius], fill=255)
    assert nearest([*flat, *stripes, *rings], image_format) > NEAR_EQUAL_BITS
    for image in itertools.chain(flat, stripes, rings):
        assert hash_of(image, image_format) == hash_of(image.copy(), image_format)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_images_of_one_pixel_height_or_width(size: tuple[int, int]) -> None:
    for image_format in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        facts = examine(encode(draw_photo(*size), image_format))
        assert (facts.width_px, facts.height_px) == size


def test_many_small_chunks_of_a_png() -> None:
    chunks = png_chunk(b"tEXt", b"key\0value") * 500
    assert examine(write_png(np.zeros((4, 4), np.uint8), bit_depth=8, color_type=0, chunks=chunks)).width_px == 4
