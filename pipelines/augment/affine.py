"""Flip, rotation, zoom and translation as one warp: numbers are sampled apart from being applied, one interpolation in all.

Conventions and distributions are those of Keras's RandomFlip, RandomRotation, RandomZoom and RandomTranslation with
`fill_mode="reflect"` and bilinear interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.config import AugmentConfig

# A parallel loop inside OpenCV would fight with tf.data's own threads for the cores.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class AffineParameters:
    """What is done to one image, in the order flip, rotate, zoom, shift.

    Attributes:
        flip_x, flip_y: mirror left-right, top-bottom.
        angle: of rotation, radians, counter-clockwise.
        zoom: factor on the distances that are sampled: above 1 zooms out.
        shift_x, shift_y: as fractions of width and height; positive moves the content right and down.
    """

    flip_x: bool = False
    flip_y: bool = False
    angle: float = 0.0
    zoom: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0


def sample_affine(config: AugmentConfig, *, seed: int, epoch: int, example: int) -> AffineParameters:
    """Draws the numbers of one image in one epoch: a pure function of its arguments.

    Philox with the key (seed, epoch) and the example as counter: neighbouring examples and epochs are independent, and
    no state is carried from one to the next.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, example, 0, 0]))
    draws = generator.random(6)
    signed = 2 * draws - 1
    return AffineParameters(
        flip_x=bool(config.horizontal_flip and draws[0] < 0.5),
        flip_y=bool(config.vertical_flip and draws[1] < 0.5),
        angle=float(2 * np.pi * config.rotation * signed[2]),
        zoom=float(1 + config.zoom * signed[3]),
        shift_x=float(config.translation * signed[4]),
        shift_y=float(config.translation * signed[5]),
    )


def sampling_matrix(parameters: AffineParameters, *, width: int, height: int) -> NDArray[np.float64]:
    """The matrix float64 [2, 3] that takes a pixel (x, y, 1) of the result to the place in the input that it shows."""
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    cosine, sine = np.cos(parameters.angle), np.sin(parameters.angle)
    flip = np.diag([-1.0 if parameters.flip_x else 1.0, -1.0 if parameters.flip_y else 1.0])
    rotate = np.array([[cosine, -sine], [sine, cosine]])
    linear = flip @ rotate * parameters.zoom
    shift = np.array([parameters.shift_x * width, parameters.shift_y * height])
    offset = centre - linear @ (centre + shift)
    return np.column_stack([linear, offset])


def apply_affine(image: NDArray[np.uint8], parameters: AffineParameters) -> NDArray[np.uint8]:
    """Warps one image uint8 [H, W, 3] with bilinear interpolation; what lies outside is the image reflected."""
    height, width = image.shape[:2]
    warped = cv2.warpAffine(
        image,
        sampling_matrix(parameters, width=width, height=height),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(warped, np.uint8)


def augment_batch(
    images: NDArray[np.uint8],
    examples: Sequence[int] | NDArray[np.int64],
    *,
    config: AugmentConfig,
    seed: int,
    epoch: int,
) -> NDArray[np.uint8]:
    """Augments a batch uint8 [B, H, W, 3], each image by the numbers of its example in this epoch; returns a new array."""
    result = np.empty_like(images)
    for place, example in enumerate(examples):
        parameters = sample_affine(config, seed=seed, epoch=epoch, example=int(example))
        result[place] = apply_affine(images[place], parameters)
    return result
