"""What the peers without a decoder of their own do to a photo, by Pillow: the calls that torchvision's transforms make too.

Flip, rotation and zoom are one affine transform after a mirror, as `RandomHorizontalFlip` and `RandomAffine` would: the
fastest way that Pillow has. Pixels stay uint8, which spares these peers the conversion to float.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def list_photos(folder: str) -> list[tuple[str, int]]:
    """Paths with their labels, by class folder."""
    classes = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    return [(str(path), label) for label, root in enumerate(classes) for path in sorted(root.rglob("*")) if path.is_file()]


def load_photo(path: str, size: int) -> Image.Image:
    """Decoded and resized to a square, bilinear."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)


def change_photo(image: Image.Image) -> Image.Image:
    """Mirrored with chance one half, then rotated by up to .1 turns and zoomed by up to 10%, bilinear."""
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle, zoom = math.tau * random.uniform(-0.1, 0.1), random.uniform(0.9, 1.1)
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    centre = (image.width - 1) / 2
    offset_x, offset_y = centre - centre * (cosine - sine), centre - centre * (sine + cosine)
    matrix = (cosine, -sine, offset_x, sine, cosine, offset_y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def to_array(image: Image.Image) -> Any:
    """Pixels uint8 [S, S, 3], a copy."""
    return np.array(image)
