"""Mixed precision: layers that compute in 16 bits on float32 weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from pipelines.config import Precision

# From here on NVIDIA GPUs have tensor cores (TensorFlow's guide to mixed precision).
_LEAST_CAPABILITY = (7, 0)


@contextmanager
def layers_in(precision: Precision) -> Iterator[None]:
    """Layers made in this block compute as the recipe says; afterwards Keras's policy is as it was.

    Weights are float32 all the same, and so are the logits of `build_classifier`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choose_policy(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def choose_policy(precision: Precision) -> str:
    """The name of Keras's dtype policy; `auto` asks the GPUs that TensorFlow sees, of which one must not slow down all."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    # Other vendors' GPUs tell no capability.
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return "mixed_float16" if capabilities and min(capabilities) >= _LEAST_CAPABILITY else "float32"
