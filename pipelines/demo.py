"""The data and the recipe of `imagemill demo`: scikit-learn's handwritten digits as a class folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.config import AugmentConfig, FineTuneConfig, HeadConfig, Recipe

_SIDE_PX = 64


def write_digits(folder: Path) -> None:
    """Writes 1,797 real 8x8 digits as grey PNG files of 64 px, one sub-folder per digit; files that are there already stay.

    Source: `sklearn.datasets.load_digits`, the test part of UCI's "Optical Recognition of Handwritten Digits".
    """
    digits = load_digits()
    for number, (values, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(digit) / f"{number:04d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((values * (255 / 16)).astype(np.uint8))
        temporary = path.with_suffix(".tmp")
        small.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC).save(temporary, format="PNG")
        temporary.replace(path)


def demo_recipe() -> Recipe:
    """Digits are no photos: a mirrored one is wrong, and more of the backbone has to learn."""
    return Recipe(
        name="digits",
        image_size=_SIDE_PX,
        augment=AugmentConfig(horizontal_flip=False, rotation=0.03, zoom=0.1, translation=0.05),
        head=HeadConfig(epochs=5),
        fine_tune=FineTuneConfig(epochs=12, layers=110, learning_rate=5e-4),
    )
