"""The table of backbones: what each row promises, and where weights come from."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import BACKBONE_NAMES, BackboneName
from pipelines.defaults import FROM_SCRATCH
from pipelines.errors import InputError, WeightsUnavailableError
from pipelines.models.backbones import BACKBONES, Preprocessing, build_backbone, preprocess
from pipelines.models.weights_file import load_weights_file, mend_normalization

# NumPy 2 asks `__array__` of TensorFlow's tensors for a `copy` argument that TensorFlow 2.21 does not know.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

APPLICATIONS = keras.applications
REFERENCE_PREPROCESSING: dict[str, Callable[[Any], Any]] = {
    "EfficientNetLite0": lambda pixels: (pixels - 127) / 128,
    "MobileNetV2": APPLICATIONS.mobilenet_v2.preprocess_input,
    "MobileNetV3Large": APPLICATIONS.mobilenet_v3.preprocess_input,
    **{f"EfficientNetB{n}": APPLICATIONS.efficientnet.preprocess_input for n in range(5)},
    **{f"EfficientNetV2B{n}": APPLICATIONS.efficientnet_v2.preprocess_input for n in range(4)},
    "ResNet50": APPLICATIONS.resnet.preprocess_input,
    "ResNet50V2": APPLICATIONS.resnet_v2.preprocess_input,
    "DenseNet121": APPLICATIONS.densenet.preprocess_input,
    "Xception": APPLICATIONS.xception.preprocess_input,
    "ConvNeXtTiny": APPLICATIONS.convnext.preprocess_input,
    **{name: lambda pixels: pixels / 127.5 - 1 for name in FROM_SCRATCH},
}


def random_pixels(side_px: int = 32, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (2, side_px, side_px, 3)).astype(np.float32)


def test_rows_are_the_names_of_a_recipe() -> None:
    assert tuple(BACKBONES) == BACKBONE_NAMES
    assert all(row.name == name for name, row in BACKBONES.items())


def test_table_imports_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys, pipelines.models.backbones as b; assert len(b.BACKBONES) > 1; "
        "print(*{'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_is_that_of_the_network(name: str) -> None:
    kind = BACKBONES[name].preprocessing
    expected = np.asarray(REFERENCE_PREPROCESSING[name](random_pixels()))
    np.testing.assert_allclose(preprocess(tf.constant(random_pixels()), kind), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "tf", "torch", "caffe", "lite0"])
def test_preprocessing_is_the_same_in_a_model_and_in_tf_data(kind: Preprocessing) -> None:
    eager = np.asarray(preprocess(tf.constant(random_pixels()), kind))
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, preprocess(image, kind))
    restored = keras.Model.from_config(model.get_config())
    (mapped,) = tf.data.Dataset.from_tensors(random_pixels()).map(lambda x: preprocess(x, kind))
    for other in (model(random_pixels()), restored(random_pixels()), mapped):
        np.testing.assert_array_equal(np.asarray(other), eager)


def test_wrong_requests() -> None:
    with pytest.raises(InputError, match="unknown backbone 'ResNet5'; choose one of: EfficientNetLite0, MobileNetV2,"):
        build_backbone("ResNet5", image_size=32, weights="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`image_size` must be at least 71 for Xception; received 70"):
        build_backbone("Xception", image_size=70, weights="none")
    with pytest.raises(InputError, match=r"`model\.weights` must be imagenet, none or an existing file; received 'no'"):
        build_backbone("MobileNetV2", image_size=32, weights="no")


def test_no_network_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(url: str, *_: Any) -> None:
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as caught:
        build_backbone("MobileNetV2", image_size=40, weights="imagenet")
    message = str(caught.value)
    assert message.startswith("the ImageNet weights of MobileNetV2 could not be fetched (URL fetch failure on https://")
    assert "Name or service not known); `model.backbone: EfficientNetLite0` carries its weights" in message
    assert "\n" not in message


def saved_network(name: BackboneName, path: Path, *, imagenet_like: bool = False) -> keras.Model:
    """A random network, saved; like an EfficientNetB* file of Keras's if asked: the deviation stored as the variance."""
    network = build_backbone(name, image_size=32, weights="none")
    if imagenet_like:
        (layer,) = [layer for layer in network.layers if isinstance(layer, keras.layers.Normalization)]
        layer.set_weights([np.array(values) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0)])
        layer.finalize_state()
    save(network, path)
    return network


def save(model: keras.Model, path: Path) -> None:
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_weights_come_from_a_file_that_fits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    network = saved_network("EfficientNetLite0", path)
    again = build_backbone("EfficientNetLite0", image_size=64, weights=str(path))
    for left, right in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    other, garbage = tmp_path / f"other{suffix}", tmp_path / f"garbage{suffix}"
    garbage.write_bytes(b"not weights")
    image = keras.Input((32, 32, 3))
    save(keras.Model(image, keras.layers.Conv2D(32, 3)(image)), other)
    for path in (other, garbage):
        with pytest.raises(InputError, match=r"does not hold weights of the backbone EfficientNetLite0 \([^\n]+\)$"):
            build_backbone("EfficientNetLite0", image_size=32, weights=str(path))


def test_layers_that_keras_only_warns_of_are_errors(tmp_path: Path) -> None:
    def load_some(path: Path) -> None:
        warnings.warn("Skipping nested container at 'a': Affected layers will retain their weights.", stacklevel=2)

    network = SimpleNamespace(name="Xception", layers=[], load_weights=load_some)
    with pytest.raises(InputError, match=r"does not hold weights of the backbone Xception \(Skipping nested container"):
        load_weights_file(network, tmp_path / "some.keras")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"`model\.weights` must end in one of \.weights\.h5, \.keras, \.h5; received"):
        build_backbone("MobileNetV2", image_size=32, weights=str(path))


def test_imagenet_weights_at_another_size_do_not_warn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = saved_network("MobileNetV2", tmp_path / "fetched.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(tmp_path / "fetched.h5"))
    network = build_backbone("MobileNetV2", image_size=40, weights="imagenet")  # warnings are errors here
    np.testing.assert_array_equal(network.get_weights()[0], source.get_weights()[0])
    np.testing.assert_array_equal(network.get_weights()[-1], source.get_weights()[-1])


def test_efficientnet_scales_its_input_alike_from_keras_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved_network("EfficientNetB0", tmp_path / "fetched.h5", imagenet_like=True)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(tmp_path / "fetched.h5"))
    fetched = build_backbone("EfficientNetB0", image_size=32, weights="imagenet")
    fetched.save_weights(tmp_path / "kept.weights.h5")
    expected = (random_pixels() / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(scaled_pixels(fetched), expected, atol=1e-5)
    bare = build_backbone("EfficientNetB0", image_size=32, weights="none")
    bare.set_weights(fetched.get_weights())  # as a trained model is put together again
    mend_normalization(bare)
    np.testing.assert_allclose(scaled_pixels(bare), expected, atol=1e-5)
    for file in ("fetched.h5", "kept.weights.h5"):
        loaded = build_backbone("EfficientNetB0", image_size=32, weights=str(tmp_path / file))
        np.testing.assert_allclose(scaled_pixels(loaded), expected, atol=1e-5)
    size: dict[str, Any] = {"include_top": False, "input_shape": (32, 32, 3)}
    plain = keras.applications.EfficientNetB0(weights=str(tmp_path / "fetched.h5"), **size)
    assert np.abs(scaled_pixels(plain) - expected).max() > 1  # what Keras itself makes of the same file


def scaled_pixels(network: keras.Model) -> np.ndarray[Any, Any]:
    """What the first convolution of an EfficientNetB* sees of the pixels, without the padding."""
    padding = network.get_layer("stem_conv_pad")
    return np.asarray(keras.Model(network.input, padding.input)(random_pixels()))
