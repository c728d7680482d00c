"""Weights of a backbone from a file of the user's. Importing this module imports neither Keras nor TensorFlow."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import InputError, one_line

if TYPE_CHECKING:
    import keras

_SUFFIXES = (".weights.h5", ".keras", ".h5")
_STORED_AS_VARIANCE = (0.229, 0.224, 0.225)  # ImageNet's standard deviation; see `mend_normalization`


def find_weights_file(weights: str) -> Path:
    """Checks the value of a recipe's `model.weights` that is not a keyword.

    Raises:
        InputError: there is no such file, or Keras does not read weights from files with such a name.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"`model.weights` must be imagenet, none or an existing file; received {weights!r}")
    if not path.name.endswith(_SUFFIXES):
        raise InputError(f"`model.weights` must end in one of {', '.join(_SUFFIXES)}; received {weights!r}")
    return path


def load_weights_file(network: keras.Model, path: Path) -> None:
    """Sets all weights of a network from a file; nothing in the file is executed.

    Args:
        network: of `build_backbone`, built with random weights.
        path: `.weights.h5`, or a `.keras` model or legacy `.h5` file of the same network.

    Raises:
        InputError: the file can't be read, or is not of this network.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            network.load_weights(path)
    except (ValueError, OSError, LookupError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        raise _misfit(network, path, one_line(error)) from error
    for warning in caught:  # Keras warns of layers that keep their random weights; here that is no success
        if "Skipping" in str(warning.message):
            raise _misfit(network, path, one_line(warning.message))
    mend_normalization(network)


def _misfit(network: keras.Model, path: Path, reason: str) -> InputError:
    return InputError(f"`model.weights`: {path} does not hold weights of the backbone {network.name} ({reason})")


def mend_normalization(network: keras.Model) -> None:
    """Makes EfficientNetB* scale its input as it was trained to, whatever way its weights came, `set_weights` included.

    Their ImageNet files hold the deviation where the variance belongs. Keras makes up for it by one more layer, but only
    under `weights="imagenet"`: a network built without, then given the same numbers, would scale its input wrongly
    (keras/src/applications/efficientnet.py; https://github.com/tensorflow/tensorflow/issues/49930).
    """
    import keras
    import numpy as np

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            mean, variance, *others = layer.get_weights()
            if np.allclose(variance, _STORED_AS_VARIANCE, atol=1e-3):
                layer.set_weights([mean, np.square(_STORED_AS_VARIANCE), *others])
            layer.finalize_state()  # until then the layer goes by the numbers it was built with
