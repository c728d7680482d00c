"""The one graph that turns the bytes of an image file into a resized image, in `prepare` and in the exported model alike.

Every function but `decode_upright_pillow` is pure TensorFlow: it runs eagerly, in `tf.function`, `tf.data.map` and
`tf.map_fn`, and in a SavedModel that is loaded without this package.
"""

from __future__ import annotations

import functools
from typing import Literal

import tensorflow as tf

from pipelines.data.orientation import orient_jpeg, orient_png, outline
from pipelines.sources.pillow import decode_upright_pillow

__all__ = [
    "SERVED_FORMATS",
    "decode_and_resize",
    "decode_upright",
    "decode_upright_pillow",
    "jpeg_ratio",
    "resize_image",
    "resize_jpeg",
]

SERVED_FORMATS = ("JPEG", "PNG", "GIF", "BMP")

_JPEG_RATIOS = (1, 2, 4, 8)  # that libjpeg shrinks by while it decodes
_BMP_HEADER_BYTES = (40, 52, 56, 64, 108, 124)  # all hold the same first 40 bytes; OS/2's old 12 do not


def decode_upright(contents: tf.Tensor, *, least_side: int | None = None) -> tf.Tensor:
    """Decodes an image file; runs in graph mode.

    Grey is repeated in all channels, CMYK is converted, alpha is dropped (as `image_dataset_from_directory` does), 16-bit
    samples keep their high byte, a GIF gives its first frame with transparent pixels black, and EXIF orientation is
    applied. JPEG pixels equal Pillow's to the bit, because both use libjpeg-turbo's accurate transform (as fast here as
    the other). For a 500x375 JPEG, telling formats apart and looking for EXIF data adds 65 us to the 750 of the decoder
    alone (240 inside `tf.data`); finding orientation 1 in it, 270.

    Args:
        contents: the whole file, scalar string.
        least_side: where given, a JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that leaves both
            sides at least this long, in px: a photo of 4000x3000 for 160 px takes a 64th of the memory and a fraction of
            the time.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: the file is damaged or truncated, not of `SERVED_FORMATS`, or of a kind that
            TensorFlow would misread (BMP: anything but 24 or 32 bits uncompressed; GIF: no frame as large as its screen).
    """
    is_jpeg = tf.equal(tf.strings.substr(contents, 0, 3), b"\xff\xd8\xff")
    image = tf.cond(is_jpeg, lambda: _decode_jpeg(contents, least_side), lambda: _decode_other(contents))
    return tf.ensure_shape(image, [None, None, 3])


def resize_image(image: tf.Tensor, *, image_size: int, resize: Literal["stretch", "crop"]) -> tf.Tensor:
    """Resizes to a square; runs in graph mode.

    Shrinks by area averaging and enlarges by bicubic interpolation (antialiased along a side that shrinks). For a photo
    of 375x500 px, averaging takes 0.4 ms where antialiased bicubic takes 1.6; features of either are as good
    (benchmarks/resize.py).

    Args:
        image: uint8 [H, W, 3], H and W at least 1.
        image_size: S, the side of the result in px.
        resize: `stretch` ignores the aspect ratio, `crop` takes the largest centred square first.

    Returns:
        uint8 [S, S, 3], rounded to the nearest.
    """
    image = _cut(image, resize)
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] >= image_size),
        lambda: _shrink(image, image_size),
        lambda: _enlarge(image, image_size),
    )


def decode_and_resize(contents: tf.Tensor, *, image_size: int, resize: Literal["stretch", "crop"]) -> tf.Tensor:
    """`decode_upright` as small as will do, then `resize_image`: scalar string -> uint8 [S, S, 3]; runs in graph mode.

    Raises:
        tf.errors.InvalidArgumentError: as `decode_upright`.
    """
    return resize_image(decode_upright(contents, least_side=image_size), image_size=image_size, resize=resize)


def resize_jpeg(contents: tf.Tensor, *, ratio: int, image_size: int, resize: Literal["stretch", "crop"]) -> tf.Tensor:
    """What `decode_and_resize` makes of a JPEG that needs no turning and whose size is known beforehand.

    The same operations, without those that find it out. Scalar string -> uint8 [S, S, 3]; runs in graph mode.

    Args:
        contents: the whole file, scalar string.
        ratio: `jpeg_ratio` of its shorter side.
        image_size: S, px.
        resize: as in `resize_image`.

    Raises:
        tf.errors.InvalidArgumentError: the file is damaged or truncated.
    """
    image = _cut(_decode_jpeg_at(contents, ratio or 1), resize)
    if not ratio:
        return _enlarge(image, image_size)
    # Averages of the same numbers, in 40 us less; not for any image, since one that nothing shrank would take much memory.
    return _shrink(tf.cast(image, tf.float32), image_size)


def jpeg_ratio(shorter_side: int, *, least_side: int) -> int:
    """The part of its size, as 1 over this, that `decode_upright` decodes a JPEG at; 0 for one that is smaller. Sides in px."""
    return max((ratio for ratio in _JPEG_RATIOS if ratio * least_side <= shorter_side), default=0)


def _cut(image: tf.Tensor, resize: Literal["stretch", "crop"]) -> tf.Tensor:
    if resize == "stretch":
        return image
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _shrink(image: tf.Tensor, image_size: int) -> tf.Tensor:
    averages = tf.image.resize(image, [image_size, image_size], method="area")
    return tf.ensure_shape(tf.cast(tf.round(averages), tf.uint8), [image_size, image_size, 3])


def _enlarge(image: tf.Tensor, image_size: int) -> tf.Tensor:
    resized = tf.image.resize(image, [image_size, image_size], method="bicubic", antialias=True)
    return tf.ensure_shape(tf.saturate_cast(tf.round(resized), tf.uint8), [image_size, image_size, 3])


def _decode_jpeg(contents: tf.Tensor, least_side: int | None) -> tf.Tensor:
    if least_side is None:
        return orient_jpeg(_decode_jpeg_at(contents, 1), contents)
    factor = tf.reduce_min(tf.io.extract_jpeg_shape(contents)[:2]) // least_side
    branch = tf.searchsorted(_JPEG_RATIOS[1:], [factor], side="right")[0]
    image = tf.switch_case(branch, [functools.partial(_decode_jpeg_at, contents, ratio) for ratio in _JPEG_RATIOS])
    return orient_jpeg(tf.ensure_shape(image, [None, None, 3]), contents)


def _decode_jpeg_at(contents: tf.Tensor, ratio: int) -> tf.Tensor:
    return tf.io.decode_jpeg(contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


@outline
def _decode_other(contents: tf.Tensor) -> tf.Tensor:
    signature = tf.strings.substr(contents, 0, 4)
    matches = [tf.equal(signature, b"\x89PNG"), tf.equal(signature, b"GIF8")]
    matches += [tf.equal(tf.strings.substr(signature, 0, 2), b"BM"), tf.constant(value=True)]
    first_match = tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)
    decoders = (_decode_png, _decode_gif, _decode_bmp, _refuse)
    return tf.switch_case(first_match, [functools.partial(decode, contents) for decode in decoders])


def _decode_png(contents: tf.Tensor) -> tf.Tensor:
    return orient_png(tf.io.decode_png(contents, channels=3), contents)


def _decode_gif(contents: tf.Tensor) -> tf.Tensor:
    """TensorFlow's canvas is the largest frame, not the screen, and what lies outside is cut off: refuse such files."""
    header = tf.io.decode_raw(tf.strings.substr(contents, 0, 10), tf.uint16, fixed_length=10)
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    screen = tf.cast(tf.stack([header[4], header[3]]), tf.int32)
    fills_screen = tf.reduce_all(tf.equal(tf.shape(image)[:2], screen))
    return _require(fills_screen, image, "this GIF has no frame as large as its screen")


def _decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    """TensorFlow looks at no palette, compression or colour mask: refuse what it would turn into wrong colours."""
    header = tf.io.decode_raw(tf.strings.substr(contents, 0, 34), tf.uint16, fixed_length=34)
    header_bytes, bits, compression = header[7], header[14], header[15]
    high_words = tf.cast(header[8], tf.int32) + tf.cast(header[16], tf.int32)
    readable = (
        tf.reduce_any(tf.equal(header_bytes, tf.constant(_BMP_HEADER_BYTES, tf.uint16)))
        & (tf.equal(bits, 24) | tf.equal(bits, 32))
        & tf.equal(compression, 0)
        & tf.equal(high_words, 0)
    )
    image = tf.io.decode_bmp(_require(readable, contents, "this BMP is not 24 or 32 bits uncompressed"), channels=3)
    return tf.ensure_shape(image, [None, None, 3])


def _refuse(_contents: tf.Tensor) -> tf.Tensor:
    return _require(tf.constant(value=False), tf.zeros([1, 1, 3], tf.uint8), "this is none of them")


def _require(condition: tf.Tensor, value: tf.Tensor, reason: str) -> tf.Tensor:
    message = f"imagemill: the model accepts {', '.join(SERVED_FORMATS)} images; {reason}"
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        return tf.identity(value)
