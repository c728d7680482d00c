"""Which of the current test images are fair: those that neither of two models was trained on or chosen by.

Sticky splits make nearly all of them so. An image that changed its split all the same (a lost ledger, other fractions, images
moved between split folders), or that a newcomer made near-equal to a training image, would flatter one of the two.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import InputError, one_line
from pipelines.run_folder import INDEX, read_seen
from pipelines.sources.duplicates import near_equal_groups
from pipelines.store.index import read_index, usable

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class TestImage:
    """One current test image.

    Attributes:
        path: relative to the source.
        sha256: of its bytes.
        label: its class, as the challenger's data set has it.
    """

    __test__ = False  # pytest takes classes of this name for tests

    path: str
    sha256: str
    label: str


@dataclass(frozen=True)
class FairImages:
    """The current test images.

    Attributes:
        fair: those that both models may be judged on.
        excluded: path of each other one, and why.
        known: how many of the fair ones are in the champion's index too.
        relabelled: path of each of these whose label has changed, and what it was.
    """

    fair: tuple[TestImage, ...]
    excluded: dict[str, str]
    known: int
    relabelled: dict[str, str]


def find_fair_images(challenger: Path, champion: Path, *, near_equal_bits: int) -> FairImages:
    """Sorts the challenger's test images by whether either model has seen them.

    An image was seen if its bytes are in a model's training or validation split, or in those of the models that it began with
    the weights of; or if it is near-equal to one of these, directly or through other images, as ingest groups them.

    Args:
        challenger: run folder; the `test` images of its index are the current ones.
        champion: run folder of the model in use.
        near_equal_bits: as `split.near_equal_bits` of the recipe.

    Raises:
        InputError: a run folder has no index that can be read.
    """
    (rows, seen), (rows_before, seen_before) = _read(challenger), _read(champion)
    current = [row for row in rows if row["split"] == "test"]
    excluded = _find_seen(current, {"challenger": seen, "champion": seen_before}, near_equal_bits)
    fair = [TestImage(row["path"], row["sha256"], row["label"]) for row in current if row["path"] not in excluded]
    former: dict[str, set[str]] = defaultdict(set)  # equal images may lie in several classes
    for row in rows_before:
        former[row["sha256"]].add(row["label"])
    known = [image for image in fair if image.sha256 in former]
    relabelled = {image.path: min(former[image.sha256]) for image in known if image.label not in former[image.sha256]}
    return FairImages(tuple(fair), excluded, len(known), relabelled)


def _find_seen(current: Sequence[_Row], seen: Mapping[str, Sequence[_Row]], near_equal_bits: int) -> dict[str, str]:
    """The path of each current image that a model has seen, and how."""
    everything = [*current, *itertools.chain.from_iterable(seen.values())]
    groups = near_equal_groups([row["perceptual_hash"] for row in everything], max_bits=near_equal_bits).tolist()
    excluded: dict[str, str] = {}
    start = len(current)
    for name, own in seen.items():
        split_of = {row["sha256"]: row["split"] for row in own}
        seen_groups = set(groups[start : start + len(own)])
        start += len(own)
        for row, group in zip(current, groups[: len(current)], strict=True):
            if row["sha256"] in split_of:
                excluded.setdefault(row["path"], f"it was in the {split_of[row['sha256']]} split of the {name}")
            elif group in seen_groups:
                excluded.setdefault(row["path"], f"it is near-equal to an image that the {name} was trained on or chosen by")
    return excluded


def _read(folder: Path) -> tuple[Sequence[_Row], Sequence[_Row]]:
    """The images of a run, and those that its model has seen."""
    try:
        return usable(read_index(folder / INDEX)), read_seen(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"a run folder must hold {INDEX}; that of {str(folder)!r} can't be read ({one_line(error)})"
        ) from error
