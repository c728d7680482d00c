"""The decode-and-resize graph: parity with Pillow, refusals, damage, and every way of running it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.data.decode import SERVED_FORMATS, decode_and_resize, decode_upright, decode_upright_pillow, resize_image
from pipelines.errors import ImageDecodeError
from pipelines.sources.examine import examine_image
from tests.images import draw_photo, encode, exif_block, insert_chunk, pillow_upright, png_chunk, variants

PILLOW_ONLY = ("webp_", "bmp_8", "bmp_1", "bmp_16", "bmp_masks", "bmp_rle", "bmp_os2")
REFUSED = sorted(name for name in variants() if name.startswith(PILLOW_ONLY))
SERVED = sorted(name for name in variants() if name not in REFUSED)
BYTES = tf.TensorSpec([], tf.string)
ACCEPTED = "imagemill: the model accepts JPEG, PNG, GIF, BMP images"


@pytest.fixture(scope="module")
def decode() -> Any:
    return tf.function(decode_upright).get_concrete_function(BYTES)


def run_in_dataset(function: Any, files: list[bytes]) -> list[Any]:
    return list(tf.data.Dataset.from_tensor_slices(files).map(function).as_numpy_iterator())


@pytest.mark.parametrize("name", SERVED)
def test_pixels_equal_pillows(name: str, decode: Any) -> None:
    contents = variants()[name]
    image = decode_upright(tf.constant(contents))
    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image.numpy(), pillow_upright(contents))
    np.testing.assert_array_equal(decode(tf.constant(contents)).numpy(), image.numpy())


def test_pixels_equal_pillows_inside_a_dataset() -> None:
    files = [variants()[name] for name in SERVED]
    for contents, image in zip(files, run_in_dataset(decode_upright, files), strict=True):
        np.testing.assert_array_equal(image, pillow_upright(contents))


def test_variants_cover_every_served_format() -> None:
    assert {name.split("_")[0].upper() for name in SERVED} == set(SERVED_FORMATS)


@pytest.mark.parametrize("name", sorted(variants()))
def test_pillow_path_gives_the_same_pixels(name: str) -> None:
    contents = variants()[name]
    pixels = decode_upright_pillow(contents)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, pillow_upright(contents))


@pytest.mark.parametrize("contents", [b"", b"\xff\xd8\xff", b"hello, this is text", variants()["png_rgb"][:500]])
def test_pillow_path_refuses_what_is_no_image(contents: bytes) -> None:
    with pytest.raises(ImageDecodeError, match=r"^(not an image of a format that can be read|unreadable: )"):
        decode_upright_pillow(contents)


@pytest.mark.parametrize("name", REFUSED)
def test_what_tensorflow_would_misread_is_refused(name: str, decode: Any) -> None:
    for function in (decode_upright, decode):
        with pytest.raises(tf.errors.InvalidArgumentError, match=ACCEPTED):
            function(tf.constant(variants()[name]))


def test_refused_inside_a_dataset() -> None:
    dataset = tf.data.Dataset.from_tensor_slices([variants()[name] for name in REFUSED]).map(decode_upright)
    with pytest.raises(tf.errors.InvalidArgumentError, match=ACCEPTED):
        next(iter(dataset))
    assert list(dataset.ignore_errors()) == []


@pytest.mark.parametrize(
    "contents",
    [b"", b"x", b"hello, this is text", b"BM", b"\xff\x0a" + bytes(40), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)],
    ids=["empty", "one byte", "text", "two bytes of BMP", "JPEG XL codestream", "JPEG XL container"],
)
def test_other_contents_are_refused(contents: bytes, decode: Any) -> None:
    for function in (decode_upright, decode):
        with pytest.raises(tf.errors.InvalidArgumentError, match=ACCEPTED):
            function(tf.constant(contents))


def test_tiff_is_refused(decode: Any) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=ACCEPTED):
        decode(tf.constant(encode(draw_photo(20, 20), "TIFF")))


@pytest.mark.parametrize("name", ["jpeg_rgb", "jpeg_progressive", "jpeg_exif6", "png_rgb", "gif_palette", "bmp_24"])
def test_truncated_files_are_errors(name: str, decode: Any) -> None:
    contents = variants()[name]
    last = len(contents) - (1 if name.startswith("gif") else 0)  # a GIF's last byte comes after all pixels
    for length in [*range(0, last, max(1, last // 60)), *range(last - 20, last)]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(tf.constant(contents[:length]))


def test_gif_whose_frame_does_not_fill_the_screen_is_refused(decode: Any) -> None:
    contents = bytearray(variants()["gif_palette"])
    contents[6:8] = (60).to_bytes(2, "little")  # a wider screen: TensorFlow would return the frame alone
    with pytest.raises(tf.errors.InvalidArgumentError, match="no frame as large as its screen"):
        decode(tf.constant(bytes(contents)))
    assert decode_upright_pillow(bytes(contents)).shape == (28, 60, 3)


def test_transparent_pixels_of_a_gif_are_black(decode: Any) -> None:
    palette = draw_photo(16, 16).quantize(8)
    image = decode(tf.constant(encode(palette, "GIF", transparency=palette.getpixel((3, 2))))).numpy()
    np.testing.assert_array_equal(image[2, 3], [0, 0, 0])


def test_animated_png_gives_its_first_frame(decode: Any) -> None:
    frames = [draw_photo(24, 16, seed=seed) for seed in (1, 2)]
    contents = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(tf.constant(contents)).numpy(), np.asarray(frames[0]))


@pytest.mark.parametrize("name", SERVED)
def test_examination_and_graph_agree_on_the_size(name: str, decode: Any) -> None:
    facts = examine_image(variants()[name], max_pixels=10_000)
    assert decode(tf.constant(variants()[name])).shape[:2] == [facts.height_px, facts.width_px]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3), (64, 64), (300, 200), (65, 64), (33, 500)])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_resize_follows_opencv_s_area_and_pillows_antialiased_bicubic(size: tuple[int, int], resize: Any) -> None:
    photo = draw_photo(*size, seed=3)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    cropped = photo.crop((left, top, left + side, top + side)) if resize == "crop" else photo
    if side >= 64:
        expected = cv2.resize(np.asarray(cropped), (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    else:
        expected = np.asarray(cropped.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    resized = resize_image(tf.constant(np.asarray(photo)), image_size=64, resize=resize)
    assert resized.dtype == tf.uint8
    assert np.abs(resized.numpy().astype(int) - expected).max() <= 1  # Pillow rounds between its two passes


def test_resize_to_its_own_size_changes_nothing() -> None:
    photo = np.asarray(draw_photo(48, 48, seed=4))
    np.testing.assert_array_equal(resize_image(tf.constant(photo), image_size=48, resize="stretch"), photo)


def test_resize_keeps_the_extremes() -> None:
    checks = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((9, 9)))[:, :, None].repeat(3, axis=2) * 255
    resized = resize_image(tf.constant(checks, tf.uint8), image_size=200, resize="stretch").numpy()
    assert (resized.min(), resized.max()) == (0, 255)


@pytest.mark.parametrize(("side", "ratio"), [(100, 1), (52, 1), (51, 2), (26, 2), (25, 4), (13, 4), (12, 8), (1, 8)])
def test_a_jpeg_is_decoded_as_small_as_will_do(side: int, ratio: int) -> None:
    contents = encode(draw_photo(150, 103, seed=5), "JPEG", quality=95, exif=exif_block(6))
    decode = tf.function(lambda file: decode_upright(file, least_side=side))
    image = decode(tf.constant(contents)).numpy()
    np.testing.assert_array_equal(image, decode_upright(tf.constant(contents), least_side=side))
    with Image.open(io.BytesIO(contents)) as opened:
        opened.draft("RGB", (150 // ratio, 103 // ratio))
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert min(image.shape[:2]) >= side
    np.testing.assert_array_equal(image, expected)


def test_a_jpeg_decoded_smaller_is_the_same_picture() -> None:
    photo = draw_photo(400, 300, seed=6)
    small = decode_and_resize(tf.constant(encode(photo, "JPEG", quality=98)), image_size=32, resize="stretch").numpy()
    whole = resize_image(tf.constant(np.asarray(photo)), image_size=32, resize="stretch").numpy()
    assert np.abs(small.astype(int) - whole).mean() < 4


def test_decode_and_resize_has_a_static_shape() -> None:
    dataset = tf.data.Dataset.from_tensor_slices([variants()["jpeg_exif6"], variants()["png_grey16"]])
    dataset = dataset.map(lambda contents: decode_and_resize(contents, image_size=32, resize="crop"))
    assert dataset.element_spec == tf.TensorSpec([32, 32, 3], tf.uint8)
    assert next(iter(dataset.batch(2))).shape == [2, 32, 32, 3]


def test_saved_model_maps_over_a_batch_of_files(tmp_path: Path) -> None:
    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, files: tf.Tensor) -> tf.Tensor:
            def one(contents: tf.Tensor) -> tf.Tensor:
                return decode_and_resize(contents, image_size=32, resize="stretch")

            return tf.map_fn(one, files, fn_output_signature=tf.TensorSpec([32, 32, 3], tf.uint8))

    tf.saved_model.save(Decoder(), str(tmp_path))
    files = [variants()[name] for name in SERVED]
    restored = tf.saved_model.load(str(tmp_path))
    images = restored(tf.constant(files)).numpy()
    for image, contents in zip(images, files, strict=True):
        np.testing.assert_array_equal(image, decode_and_resize(tf.constant(contents), image_size=32, resize="stretch"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=ACCEPTED):
        restored(tf.constant([files[0], variants()["webp_lossy"]]))


def test_exif_chunk_behind_the_pixels_counts(decode: Any) -> None:
    contents = insert_chunk(variants()["png_rgb"], png_chunk(b"eXIf", exif_block(6)), before=b"IEND")
    np.testing.assert_array_equal(decode(tf.constant(contents)).numpy(), pillow_upright(contents))
