"""The table of backbones: a new one is a row here. Importing this module imports neither Keras nor TensorFlow.

Every network is used without its top and without global pooling. The rows say what each expects of its pixels; what Keras's own
networks expect was read off `keras/src/applications` of 3.15 and is tested against their `preprocess_input`.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pipelines.config import BackboneName, BlocksConfig
from pipelines.errors import InputError, WeightsUnavailableError, one_line
from pipelines.models.weights_file import find_weights_file, load_weights_file, mend_normalization

if TYPE_CHECKING:
    import keras

Preprocessing = Literal["none", "tf", "torch", "caffe", "lite0"]
Pretrained = Literal["imagenet"] | None

_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1; keras/src/applications/imagenet_utils.py, mode "torch"
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of 0..255; the same file, mode "caffe"
_DOWNLOAD_TIMEOUT_SECONDS = 60
_BLOCKS = BlocksConfig()


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Attributes:
        name: as in a recipe's `model.backbone`.
        preprocessing: what `preprocess` has to do before the network: "none" (it is inside the network), "tf" (-1..1),
            "torch" (ImageNet mean and deviation), "caffe" (BGR, mean only) or "lite0" ((x - 127) / 128).
        build: makes the network from the image size in px, either "imagenet" or None (random weights), and the blocks of a
            from-scratch network, which the others do not look at.
        min_image_size: smallest side that the network takes, in px.
    """

    name: BackboneName
    preprocessing: Preprocessing
    build: Callable[[int, Pretrained, BlocksConfig], keras.Model]
    min_image_size: int = 32


def build_backbone(name: BackboneName, *, image_size: int, weights: str, blocks: BlocksConfig = _BLOCKS) -> keras.Model:
    """Builds a network without top and global pooling, named after its row; see `preprocess` for what to feed it.

    Args:
        name: a key of `BACKBONES`.
        image_size: side of the square input, in px.
        weights: "imagenet", "none" (random; drawn from Keras's global seed) or the path of a file: `.weights.h5`, or a
            `.keras` model of this backbone, or one of the `..._notop.h5` files that Keras downloads.
        blocks: of a from-scratch network.

    Returns:
        A model of float32 [B, image_size, image_size, 3] with a float32 feature map [B, h, w, channels].

    Raises:
        InputError: unknown name, an image too small for the network, or a file that is missing or does not fit.
        WeightsUnavailableError: the ImageNet weights could not be fetched or read.
    """
    row = BACKBONES.get(name)
    if row is None:
        raise InputError(f"unknown backbone {name!r}; choose one of: {', '.join(BACKBONES)}")
    if image_size < row.min_image_size:
        raise InputError(f"`image_size` must be at least {row.min_image_size} for {name}; received {image_size}")
    path = None if weights in ("imagenet", "none") else find_weights_file(weights)
    network = row.build(image_size, "imagenet" if weights == "imagenet" else None, blocks)
    network.name = name  # after building: Keras derives names of weight files from the name given to a constructor
    if path is not None:
        load_weights_file(network, path)
    return network


def preprocess(pixels: Any, kind: Preprocessing) -> Any:
    """Maps pixels to what a network expects, by built-in layers and ops only, so that a saved model needs no other code.

    Args:
        pixels: float32 [B, S, S, 3], RGB in 0..255; a Keras tensor while a model is assembled, or an eager tensor.
        kind: the `preprocessing` of a row.

    Returns:
        float32 of the same shape.
    """
    import keras

    def rescale(x: Any, scale: Any, offset: Any) -> Any:
        return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocess")(x)

    if kind == "tf":
        return rescale(pixels, 1 / 127.5, -1.0)
    if kind == "torch":
        moments = list(zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True))
        return rescale(pixels, [1 / (255 * std) for _, std in moments], [-mean / std for mean, std in moments])
    if kind == "caffe":
        return rescale(keras.ops.flip(pixels, axis=-1), 1.0, [-mean for mean in _CAFFE_MEAN_BGR])
    if kind == "lite0":
        return rescale(pixels, 1 / 128, -127 / 128)
    return pixels


def _build_lite0(image_size: int, weights: Pretrained, _blocks: BlocksConfig) -> keras.Model:
    from pipelines.models.lite0 import build_lite0

    return build_lite0(image_size=image_size, weights=weights)


def _build_scratch(separable: bool, image_size: int, _weights: Pretrained, blocks: BlocksConfig) -> keras.Model:
    from pipelines.models.scratch import build_scratch

    return build_scratch(blocks, image_size=image_size, separable=separable)


def _build_keras(name: str, image_size: int, weights: Pretrained, _blocks: BlocksConfig) -> keras.Model:
    """Builds a network of `keras.applications`; its ImageNet weights are downloaded once, to Keras's own cache."""
    import keras

    build = partial(getattr(keras.applications, name), include_top=False, input_shape=(image_size, image_size, 3))
    if weights is None:
        return build(weights=None)
    try:
        with _downloading():
            pretrained = build(weights=weights)
    except Exception as error:  # no narrower: Keras's get_file raises a bare `Exception`
        raise WeightsUnavailableError(
            f"the ImageNet weights of {name} could not be fetched ({one_line(error)}); "
            "`model.backbone: EfficientNetLite0` carries its weights in a package and needs no network, "
            "and `model.weights` may be `none` or a file"
        ) from error
    # EfficientNetB* has one more layer when it is built with these weights. Trained weights are later put into a network
    # that is built without them, so every network here is of the one kind.
    network = build(weights=None)
    network.set_weights(pretrained.get_weights())
    mend_normalization(network)
    return network


@contextmanager
def _downloading() -> Iterator[None]:
    """Bounds each wait for the network, which Keras does not; and hushes a warning that asks nothing of the user.

    MobileNetV2 and V3 warn where their weights were trained at another size; the convolutions take any size. Both
    settings are of the whole process, and are put back.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square", category=UserWarning)
            yield
    finally:
        socket.setdefaulttimeout(before)


def _keras_row(name: BackboneName, preprocessing: Preprocessing, *, min_image_size: int = 32) -> Backbone:
    return Backbone(name, preprocessing, partial(_build_keras, name), min_image_size)


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        row.name: row
        for row in (
            Backbone("EfficientNetLite0", "lite0", _build_lite0),
            _keras_row("MobileNetV2", "tf"),
            _keras_row("MobileNetV3Large", "none"),
            _keras_row("EfficientNetB0", "none"),
            _keras_row("EfficientNetB1", "none"),
            _keras_row("EfficientNetB2", "none"),
            _keras_row("EfficientNetB3", "none"),
            _keras_row("EfficientNetB4", "none"),
            _keras_row("EfficientNetV2B0", "none"),
            _keras_row("EfficientNetV2B1", "none"),
            _keras_row("EfficientNetV2B2", "none"),
            _keras_row("EfficientNetV2B3", "none"),
            _keras_row("ResNet50", "caffe"),
            _keras_row("ResNet50V2", "tf"),
            _keras_row("DenseNet121", "torch"),
            _keras_row("Xception", "tf", min_image_size=71),
            _keras_row("ConvNeXtTiny", "none"),
            Backbone("SmallCNN", "tf", partial(_build_scratch, False)),
            Backbone("SmallSeparableCNN", "tf", partial(_build_scratch, True)),
        )
    }
)
