"""What of the frozen part's work is stored: decided from bytes, a disk budget and whether it saves any work."""

from __future__ import annotations

from typing import Literal

from pipelines.config import AugmentConfig
from pipelines.slices import EmbedConfig

Stored = Literal["activations", "features", "off"]


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
    if config.cache.mode == "auto" and not config.pays:
        return f"there are no more epochs than `cache.views` ({config.cache.views})"
    return None


def choose_stored(config: EmbedConfig, *, rows: int, feature_bytes: int, activation_bytes: int | None) -> tuple[Stored, str]:
    """What to store, and why, as the end of a line.

    Args:
        config: of the embed stage; `why_off` gave None.
        rows: views of all images.
        feature_bytes: of one row of pooled features.
        activation_bytes: of one row at the freeze line of phase 2; None where nothing below its first layer is frozen, or where
            there is no phase 2.
    """
    budget_bytes = config.cache.budget_gib * 2**30
    features, both = rows * feature_bytes, rows * (feature_bytes + (activation_bytes or 0))
    if config.cache.mode == "features":
        return "features", f"{_size(features)}, as `cache.mode` says"
    if config.cache.mode == "activations" and activation_bytes is not None:
        return "activations", f"{_size(both)}, as `cache.mode` says"
    if activation_bytes is None:
        why = "there is no phase 2" if config.layers is None else "all layers learn in phase 2"
        if config.cache.mode == "activations" or features <= budget_bytes:
            return "features", f"{_size(features)}; {why}"
    elif both <= budget_bytes:
        return "activations", f"{_size(both)}, within `cache.budget_gib` ({config.cache.budget_gib:g})"
    elif features <= budget_bytes:
        return "features", f"{_size(features)}; activations too would be {_size(both)}, {_over(config)}"
    return "off", f"features alone would be {_size(features)}, {_over(config)}"


def _over(config: EmbedConfig) -> str:
    return f"more than `cache.budget_gib` ({config.cache.budget_gib:g})"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
