"""What a recipe's `fine_tune.layers` names in a backbone. Importing this module imports neither Keras nor TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from pipelines.errors import InputError
from pipelines.models.backbones import BACKBONES, build_backbone


def first_learning(names: Sequence[str], layers: int | str, *, backbone: str) -> int:
    """The position of the first layer that learns.

    Args:
        names: of the backbone's `layers`, in their order.
        layers: as in `set_trainable_top`.
        backbone: its name, for the message.

    Raises:
        InputError: fewer than 1 layer, or no layer of that name.
    """
    if layers == "all":
        return 0
    if isinstance(layers, int):
        if layers < 1:
            raise InputError(f"`fine_tune.layers` must be at least 1; received {layers}")
        return max(0, len(names) - layers)
    for position, name in enumerate(names):
        if name == layers or name.startswith(f"{layers}_"):
            return position
    blocks = dict.fromkeys(name.rpartition("_")[0] or name for name in names)
    raise InputError(
        f"`fine_tune.layers` must be a number, all, or a block of {backbone}; received {layers!r}:"
        f" its blocks are {', '.join(blocks)}"
    )


def print_layer_names() -> None:
    """For a process of its own: prints the names of the layers of the backbone that its last argument names, as JSON."""
    row = BACKBONES[sys.argv[-1]]
    network = build_backbone(row.name, image_size=row.min_image_size, weights="none")
    print(json.dumps([layer.name for layer in network.layers]))
