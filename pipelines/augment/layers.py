"""The other placement, `where: model`: Keras's own layers, to be put before the classifier while it is trained.

They run where the training step runs, on a GPU for instance, and cost one interpolation each. They do nothing at inference and
are no part of the model that is exported. Their numbers come from Keras's seed generators, whose states are variables of the
model: a checkpoint that holds them resumes exactly, but an image's numbers depend on the batch that it falls into.
"""

from __future__ import annotations

from typing import Any

import keras

from pipelines.augment.philox import Stream
from pipelines.config import AugmentConfig


def augmentation_layers(config: AugmentConfig, *, seed: int) -> Any:
    """The layers that do to a batch what `config` says.

    Distributions are those of `where: dataset`, except that saturation and hue are changed in HSV, as Keras does, and that
    values are clipped after each colour layer.

    Args:
        config: with `where: model`; it has refused what no Keras layer does.
        seed: the recipe's; each layer has its own stream, so that switching one on changes no other.

    Returns:
        A `keras.Sequential`, not built: uint8 or float [B, H, W, 3] in [0, 255] to float32 of that shape and range. Active only
        when called with `training=True`.
    """
    layers, both_axes = keras.layers, ("height_factor", "width_factor")
    warp = {"interpolation": config.interpolation}
    options: dict[str, Any] = {"dtype": "float32"}  # a narrower type of the model's would round pixel values
    geometry: list[tuple[Any, Stream, Any, dict[str, Any]]] = [
        (config.horizontal_flip, Stream.HORIZONTAL_FLIP, layers.RandomFlip, {"mode": "horizontal"}),
        (config.vertical_flip, Stream.VERTICAL_FLIP, layers.RandomFlip, {"mode": "vertical"}),
        (config.rotation, Stream.ROTATION, layers.RandomRotation, {"factor": config.rotation} | warp),
        (config.zoom, Stream.ZOOM, layers.RandomZoom, {"height_factor": config.zoom} | warp),
        (config.translation, Stream.TRANSLATION, layers.RandomTranslation, dict.fromkeys(both_axes, config.translation) | warp),
        (config.shear, Stream.SHEAR, layers.RandomShear, dict.fromkeys(("x_factor", "y_factor"), config.shear) | warp),
    ]
    # Pairs, since Keras 3.15 takes a single number f of RandomContrast and RandomErasing for the range [0, f].
    half = config.saturation / 2
    others: list[tuple[Any, Stream, Any, dict[str, Any]]] = [
        (config.contrast, Stream.CONTRAST, layers.RandomContrast, {"factor": (config.contrast, config.contrast)}),
        (config.brightness, Stream.BRIGHTNESS, layers.RandomBrightness, {"factor": config.brightness}),
        (config.saturation, Stream.SATURATION, layers.RandomSaturation, {"factor": (0.5 - half, 0.5 + half)}),
        (config.hue, Stream.HUE, layers.RandomHue, {"factor": config.hue}),
        (config.erasing, Stream.ERASING, layers.RandomErasing, {"factor": (config.erasing, config.erasing)}),
    ]
    active = [(kind, {**arguments, "seed": seed + stream}) for on, stream, kind, arguments in [*geometry, *others] if on]
    # RandomBrightness adds in the type of its input: uint8 would wrap around.
    to_float = layers.Rescaling(1.0, **options)
    return keras.Sequential([to_float, *(kind(**arguments, **options) for kind, arguments in active)], name="augmentation")
