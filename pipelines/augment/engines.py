"""The two passes over the pixels, warp and colours, each by OpenCV on uint8 rows and by TensorFlow.

Both engines get the same matrices and agree within rounding. OpenCV's is several times faster on a CPU
(docs/decisions/0009); TensorFlow's functions run eagerly and in graph mode, on whatever device TensorFlow has.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.aligned import new_batch

Images = NDArray[np.uint8]
Interpolation = Literal["bilinear", "nearest"]

# A parallel loop inside OpenCV would fight with tf.data's own threads for the cores.
cv2.setNumThreads(1)


def warp_opencv(images: Images, matrices: NDArray[np.float64], interpolation: Interpolation = "bilinear") -> Images:
    """Warps each image by its own matrix.

    Args:
        images: uint8 [B, S, S, 3].
        matrices: float64 [B, 3, 3], from a pixel of the result to the place in the input that it shows; the last row is
            (0, 0, 1).
        interpolation: between pixels, or the nearest one.

    Returns:
        A new array uint8 [B, S, S, 3]; what lies outside is the image reflected about its edge.
    """
    side = images.shape[1]
    # OpenCV 5 warps four channels in half the time of three, and in three quarters of that where it never looks outside.
    four, warped = np.empty((2, side, side, 4), np.uint8)
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_NEAREST)
    result = new_batch(images.shape, np.uint8)
    borders = _overshoot(matrices, side)
    for image, matrix, border, place in zip(images, matrices[:, :2].copy(), borders, result, strict=True):
        source = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=four)
        if 0 < border <= side:
            source = cv2.copyMakeBorder(source, border, border, border, border, cv2.BORDER_REFLECT)
            matrix[:, 2] += border
        cv2.warpAffine(source, matrix, (side, side), dst=warped, flags=flags, borderMode=cv2.BORDER_REFLECT)
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=place)
    return result


def _overshoot(matrices: NDArray[np.float64], side: int) -> list[int]:
    """How many px outside of its image each warp looks, at most: one more than its farthest corner."""
    last = side - 1
    corners = matrices[:, :2] @ np.array([[0, last, 0, last], [0, 0, last, last], [1, 1, 1, 1]])
    outside = np.maximum(-corners, corners - last).max(axis=(1, 2))
    whole: list[int] = np.where(outside > 0, np.ceil(outside) + 1, 0).astype(int).tolist()
    return whole


def warp_tensorflow(images: Any, matrices: Any, interpolation: Interpolation = "bilinear") -> Any:
    """As `warp_opencv`, on tensors. Runs eagerly and in graph mode."""
    transforms = tf.reshape(tf.cast(matrices, tf.float32), [-1, 9])[:, :8]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),  # on uint8 the op would cut the fraction off, not round
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation.upper(),
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(_to_uint8(warped), images.shape)


def recolor_opencv(images: Images, matrices: NDArray[np.float64]) -> Images:
    """Changes the colours of each image by its own matrix.

    Args:
        images: uint8 [B, S, S, 3].
        matrices: float64 [B, 7, 7] on (pixel, mean of the image, 1), see `pipelines.augment.color`.

    Returns:
        A new array uint8 [B, S, S, 3], rounded and clipped to [0, 255].
    """
    result = new_batch(images.shape, np.uint8)
    means = np.array([cv2.mean(image)[:3] for image in images])
    offsets = np.einsum("bij,bj->bi", matrices[:, :3, 3:6], means) + matrices[:, :3, 6]
    for image, matrix, place in zip(images, np.dstack([matrices[:, :3, :3], offsets]), result, strict=True):
        cv2.transform(image, matrix, dst=place)
    return result


def recolor_tensorflow(images: Any, matrices: Any) -> Any:
    """As `recolor_opencv`, on tensors. Runs eagerly and in graph mode."""
    matrices = tf.cast(matrices, tf.float32)
    pixels = tf.cast(images, tf.float32)
    mean = tf.reduce_mean(pixels, axis=[1, 2])
    offset = tf.linalg.matvec(matrices[:, :3, 3:6], mean) + matrices[:, :3, 6]
    return _to_uint8(tf.einsum("bhwc,bdc->bhwd", pixels, matrices[:, :3, :3]) + offset[:, None, None, :])


def _to_uint8(pixels: Any) -> Any:
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
