"""What a recipe with a from-scratch backbone means where it says nothing: the other defaults are those of transfer learning.

Imports nothing of imagemill's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# No weights to start from: all of these learn, BatchNormalization too, in one phase, which is `fine_tune`.
FROM_SCRATCH: tuple[str, ...] = ("SmallCNN", "SmallSeparableCNN")

# Sources: hidden layer, dropout and batch are those of the usual CNN for CIFAR-10 in Keras's examples; Adam 1e-3 is Keras's
# own default; shifting by 4 of 32 px and flipping is the standard augmentation of CIFAR-10 (He et al., arXiv 1512.03385).
# The patience is longer than that of transfer learning, since validation figures jump while BatchNormalization learns.
FROM_SCRATCH_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 32,
        "batch_size": 128,
        "augment": {"rotation": 0.0, "zoom": 0.0, "translation": 0.125},
        "model": {"weights": "none", "hidden_units": 256, "dropout": 0.5},
        "head": {"epochs": 0},
        "fine_tune": {"epochs": 40, "layers": "all", "learning_rate": 1e-3, "schedule": "plateau", "patience": 8},
    }
)


def fill_from_scratch(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of a recipe, completed where its backbone is a from-scratch one; what is written wins.

    Args:
        written: what was said of a recipe: values, and sections as mappings.
    """
    model = written.get("model")
    if not isinstance(model, Mapping) or model.get("backbone") not in FROM_SCRATCH:
        return written
    return merge(FROM_SCRATCH_DEFAULTS, written)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one, key by key at any depth; where both have a value that of `over` holds."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], Mapping) and isinstance(over[key], Mapping):
            merged[key] = merge(under[key], over[key])
    return merged
