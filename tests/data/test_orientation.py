"""EXIF orientation in the graph: the rules of the plain Python parser, whatever the bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipelines.data.orientation import apply_orientation, orient_jpeg, orient_png, read_tiff_orientation
from pipelines.sources.pillow import tiff_orientation
from tests.images import (
    ORIENTATIONS,
    exif_block,
    exif_segment,
    insert_chunk,
    insert_segments,
    jpeg_segment,
    png_chunk,
    variants,
)

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
JPEG = variants()["jpeg_rgb"]
PNG = variants()["png_rgb"]
XMP = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='3'/>")
PROPERTY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def concrete(function: Any, *specs: Any) -> Any:
    return tf.function(function).get_concrete_function(*specs)


read_tiff = concrete(read_tiff_orientation, tf.TensorSpec([], tf.string))
by_segment = concrete(orient_jpeg, tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.string))
by_chunk = concrete(orient_png, tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.string))


def turn(orientation: int) -> Any:
    """`PIXELS` as Pillow turns them."""
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def assert_turned(contents: bytes, orientation: int, orient: Any = by_segment) -> None:
    turned = orient(tf.constant(PIXELS), tf.constant(contents)).numpy()
    np.testing.assert_array_equal(turned, turn(orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_apply_orientation_equals_pillow(orientation: int) -> None:
    value = tf.constant(orientation, tf.int64)
    np.testing.assert_array_equal(apply_orientation(tf.constant(PIXELS), value), turn(orientation))
    dataset = tf.data.Dataset.from_tensors(value).map(lambda number: apply_orientation(tf.constant(PIXELS), number))
    np.testing.assert_array_equal(next(iter(dataset)), turn(orientation))


@pytest.mark.parametrize(("order", "kind"), [("<", 3), ("<", 4), (">", 3), (">", 4)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_both_byte_orders_and_integer_types(orientation: int, order: str, kind: int) -> None:
    block = exif_block(orientation, order=order, kind=kind, ifd_offset=14)
    assert_turned(insert_segments(JPEG, exif_segment(block)), orientation)
    assert_turned(insert_chunk(PNG, png_chunk(b"eXIf", block)), orientation, by_chunk)
    assert tiff_orientation(block) == orientation


@pytest.mark.parametrize(
    "ahead",
    [
        jpeg_segment(0xE0, b"JFIF\0" + bytes(9)),
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 2,
        jpeg_segment(0xFE, b"a comment that says Exif\0\0"),
        XMP,
        b"\xff" * 40,
        jpeg_segment(0xE5, b"") + b"\xff\xff\xff",
        b"\xff\x01\xff\xd0",
        JPEG[2 : JPEG.index(b"\xff\xda")],
    ],
    ids=["JFIF", "two profiles", "comment", "XMP", "padding", "empty segment", "bare markers", "tables"],
)
def test_segments_ahead_of_the_exif_segment(ahead: bytes) -> None:
    assert_turned(insert_segments(JPEG, ahead, exif_segment(exif_block(6))), 6)


def test_first_exif_segment_counts() -> None:
    assert_turned(insert_segments(JPEG, exif_segment(exif_block(8)), exif_segment(exif_block(3))), 8)


def test_exif_chunk_behind_the_pixels_counts() -> None:
    assert_turned(insert_chunk(PNG, png_chunk(b"eXIf", exif_block(5)), before=b"IEND"), 5, by_chunk)


@pytest.mark.parametrize(
    "contents",
    [
        JPEG + exif_segment(exif_block(6)),
        insert_segments(JPEG, jpeg_segment(0xFE, exif_segment(exif_block(6)))),
        insert_segments(JPEG, jpeg_segment(0xE2, b"Exif\0\0" + exif_block(6))),
        insert_segments(JPEG, XMP),
        insert_segments(JPEG, b"\xff\xe0\0\0" + exif_segment(exif_block(6))),
        b"\xff\xd8" + exif_segment(exif_block(6))[:12],
        b"\xff\xd8Exif\0\0",
        b"",
    ],
    ids=["behind", "in a comment", "APP2", "XMP only", "length 0", "cut off", "no segment", "empty"],
)
def test_other_places_do_not_count(contents: bytes) -> None:
    assert_turned(contents, 1)


@pytest.mark.parametrize("value", [0, 9, 255, 256 * 6, 65535])
def test_invalid_orientations_count_as_upright(value: int) -> None:
    assert_turned(insert_segments(JPEG, exif_segment(exif_block(value))), 1)
    assert tiff_orientation(exif_block(value)) == 1


def test_more_segments_than_any_file_has_end_the_walk() -> None:
    assert_turned(insert_segments(JPEG, b"\xff" * 10_001, exif_segment(exif_block(6))), 1)


@pytest.mark.parametrize("length", range(len(exif_block(6))))
def test_cut_off_block(length: int) -> None:
    block = exif_block(6)[:length]
    expected = 6 if length >= 34 else 1  # the second entry is whole
    assert tiff_orientation(block) == expected
    assert_turned(insert_segments(JPEG, exif_segment(block)), expected)


@PROPERTY
@given(
    block=st.builds(
        lambda order, kind, value, offset: exif_block(value, order=order, kind=kind, ifd_offset=offset),
        st.sampled_from("<>"),
        st.sampled_from([3, 4]),
        st.integers(0, 12),
        st.integers(8, 20),
    ),
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
)
def test_damaged_blocks_read_as_in_python(block: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(block)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    assert read_tiff(tf.constant(bytes(damaged))).numpy() == tiff_orientation(bytes(damaged))


@PROPERTY
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"Exif\0\0", b"\xff\xe1\0\x10", b"\xff"])), max_size=12))
def test_any_bytes_end_the_walk(pieces: list[bytes]) -> None:
    contents = tf.constant(b"\xff\xd8" + b"".join(pieces) + b"Exif\0\0")
    assert sorted(by_segment(tf.constant(PIXELS), contents).shape) == [2, 3, 3]


@PROPERTY
@given(st.binary(max_size=200))
def test_any_chunks_end_the_walk(data: bytes) -> None:
    contents = tf.constant(b"\x89PNG\r\n\x1a\n" + data + b"eXIf")
    assert sorted(by_chunk(tf.constant(PIXELS), contents).shape) == [2, 3, 3]
