"""What of the frozen part's work is stored: decided from bytes, a disk budget and the seconds that it saves.

Seconds are counted at fixed rates, not measured: what is trained depends on the choice, and must not on a busy machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.config import AugmentConfig
from pipelines.slices import EmbedConfig

Stored = Literal["activations", "features", "off"]

# Two cores with AVX2: EfficientNet-Lite0 at 160 px, 196 million, takes 6.0 ms of one of them (decision 13).
_MULTIPLY_ADDS_PER_SECOND = 6e10
_DISK_BYTES_PER_SECOND = 5e8  # a SATA SSD; what was just written is mostly read from memory, much faster


@dataclass(frozen=True)
class Offer:
    """What may be stored of each view of each image.

    Attributes:
        row_bytes: of one.
        multiply_adds: to make it of pixels.
    """

    row_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Showings:
    """What training looks at.

    Attributes:
        images: in an epoch, those of validation included.
        rows: views of all images, which are what may be stored.
        pixel_bytes: of one image.
    """

    images: int
    rows: int
    pixel_bytes: int


def count_views(augment: AugmentConfig, views: int) -> int:
    """How many views differ: without augmentation all of them would be the plain image."""
    return views if augment.changes_images else 1


def why_off(config: EmbedConfig) -> str | None:
    """Why nothing can be stored, or need be, without a look at the network; or None."""
    if config.cache.mode == "off":
        return "as `cache.mode` says"
    if config.model.from_scratch:
        return f"all of {config.model.backbone} learns"
    if reason := config.augment.uncacheable:
        return f"can't be had with {reason}"
    if config.cache.mode == "auto" and config.head_epochs + config.fine_tune_epochs <= config.cache.views:
        return f"there are no more epochs than `cache.views` ({config.cache.views})"
    return None


def choose_stored(config: EmbedConfig, showings: Showings, *, features: Offer, activations: Offer | None) -> tuple[Stored, str]:
    """What to store, and why, as the end of a line.

    `auto` takes what saves the most seconds of all that the budget holds, or nothing if nothing saves any.

    Args:
        config: of the embed stage; `why_off` gave None.
        showings: what training looks at.
        features: pooled ones.
        activations: at the freeze line of phase 2; None where nothing below its first layer is frozen, or where there is no
            phase 2.
    """
    feature_bytes = showings.rows * features.row_bytes
    both_bytes = feature_bytes + showings.rows * (activations.row_bytes if activations else 0)
    if config.cache.mode == "features":
        return "features", f"{_size(feature_bytes)}, as `cache.mode` says"
    if config.cache.mode == "activations" and activations is None:
        return "features", f"{_size(feature_bytes)}; {_why_no_line(config)}"
    if config.cache.mode == "activations":
        return "activations", f"{_size(both_bytes)}, as `cache.mode` says"
    return _weigh(config, showings, features, activations, feature_bytes=feature_bytes, both_bytes=both_bytes)


def _weigh(
    config: EmbedConfig,
    showings: Showings,
    features: Offer,
    activations: Offer | None,
    *,
    feature_bytes: int,
    both_bytes: int,
) -> tuple[Stored, str]:
    """The choice of `auto`."""
    budget = f"`cache.budget_gib` ({config.cache.budget_gib:g})"
    fit, both_fit = (size <= config.cache.budget_gib * 2**30 for size in (feature_bytes, both_bytes))
    if not fit:
        return "off", f"features alone would be {_size(feature_bytes)}, more than {budget}"
    alone = seconds_saved(config, showings, features=features)
    both = seconds_saved(config, showings, features=features, activations=activations)
    if activations is not None and both_fit and both > max(alone, 0):
        return "activations", f"{_size(both_bytes)}, {_saves(both)}, within {budget}"
    if alone <= 0:
        return "off", f"to store {_size(feature_bytes)} or more would take longer than it saves"
    if activations is None:
        why = _why_no_line(config)
    else:
        why = f"activations too would be {_size(both_bytes)}{' and save less' if both_fit else f', more than {budget}'}"
    return "features", f"{_size(feature_bytes)}, {_saves(alone)}; {why}"


def _why_no_line(config: EmbedConfig) -> str:
    return "there is no phase 2" if config.layers is None else "all layers learn in phase 2"


def seconds_saved(config: EmbedConfig, showings: Showings, *, features: Offer, activations: Offer | None = None) -> float:
    """By storing, on two cores: the frozen part in each epoch, less it once for each row, and less what the disk takes.

    An epoch reads what is stored instead of pixels. A phase that ends before its last epoch saves less.
    """
    written_bytes = features.row_bytes + (activations.row_bytes if activations else 0)
    saved = -showings.rows * _seconds(features.multiply_adds, written_bytes)
    for epochs, offer in ((config.head_epochs, features), (config.fine_tune_epochs, activations)):
        if offer is not None:
            saved += epochs * showings.images * _seconds(offer.multiply_adds, showings.pixel_bytes - offer.row_bytes)
    return saved


def _seconds(multiply_adds: int, disk_bytes: int) -> float:
    return multiply_adds / _MULTIPLY_ADDS_PER_SECOND + disk_bytes / _DISK_BYTES_PER_SECOND


def _saves(seconds: float) -> str:
    if seconds < 1:
        return "saves less than a second"
    amount = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
    return f"saves about {amount} on two cores"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
