"""A network of a few layers in place of EfficientNet-Lite0, for tests of what happens around a network.

Its layers are of the same kinds. Lite0 itself takes seconds to build, to trace and to export, each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def build_small(*, image_size: int, weights: str | None) -> Any:
    """As `build_lite0`, without weights of its own."""
    import keras

    image = keras.Input((image_size, image_size, 3), dtype="float32")
    features = image
    for filters in (8, 16):
        # Named, because Keras numbers others through the whole process.
        conv = keras.layers.Conv2D(filters, 3, strides=4, padding="same", use_bias=False, name=f"expand_{filters}")
        features = keras.layers.BatchNormalization(name=f"expand_bn_{filters}")(conv(features))
        features = keras.layers.ReLU(6, name=f"expand_relu_{filters}")(features)
        depthwise = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise_{filters}")
        features = keras.layers.BatchNormalization(name=f"depthwise_bn_{filters}")(depthwise(features))
    return keras.Model(image, features)


@contextmanager
def small_lite0() -> Iterator[None]:
    """Makes every EfficientNet-Lite0 of this process a small one meanwhile."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.models.lite0.build_lite0", build_small)
        yield
