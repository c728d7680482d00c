"""The policy that layers are made with: chosen by the GPUs, left behind nowhere."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import ModelConfig
from pipelines.models.assemble import build_classifier
from pipelines.training.precision import choose_policy, layers_in


def build(precision: Any) -> keras.Model:
    with layers_in(precision):
        return build_classifier(ModelConfig(weights="none"), image_size=32, num_classes=3, seed=1)


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(9, 0), (8, 6)], "mixed_float16"),
        ([(9, 0), (6, 1)], "float32"),
        ([None], "float32"),
    ],
)
def test_auto_asks_the_gpus(capabilities: list[Any], policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities if kind == "GPU" else [])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {} if gpu is None else {"compute_capability": gpu}
    )
    assert choose_policy("auto") == policy
    assert choose_policy("mixed_bfloat16") == "mixed_bfloat16"


@pytest.mark.parametrize("before", ["float32", "mixed_bfloat16"])
def test_the_policy_ends_with_its_block_whatever_happens_in_it(before: str) -> None:
    keras.config.set_dtype_policy(before)
    try:
        with pytest.raises(KeyError), layers_in("mixed_float16"):
            assert keras.layers.Dense(1).compute_dtype == "float16"
            raise KeyError
        assert keras.config.dtype_policy().name == before
    finally:
        keras.config.set_dtype_policy("float32")


def build_both(precision: Any) -> tuple[Any, Any]:
    """A mixed and a plain classifier, built again where a thread of another test drew from Python's generator in between.

    Keras takes the seeds of its initial weights from there.
    """
    for _ in range(5):
        mixed, plain = build(precision), build("float32")
        if all(map(np.array_equal, mixed.get_weights(), plain.get_weights())):
            break
    return mixed, plain


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_classifier_has_float32_weights_pixels_and_logits(precision: Any) -> None:
    mixed, plain = build_both(precision)
    assert mixed.get_layer("EfficientNetLite0").compute_dtype == precision.removeprefix("mixed_")
    assert {variable.dtype for variable in mixed.weights} <= {"float32", "uint32", "int64"}
    for mine, other in zip(mixed.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    prepared = keras.Model(mixed.input, mixed.get_layer("preprocess").output)(pixels)
    np.testing.assert_allclose(prepared, (pixels - 127) / 128, rtol=1e-5, atol=1e-6)
    logits = mixed(pixels)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, plain(pixels), atol=0.05 * float(np.abs(plain(pixels)).max()) + 1e-3)
