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
        unchanged: paths of the fair ones that are in the champion's index too, with the label that they have now.
        relabelled: path of each fair one that is there with another label, and what that is.
    """

    fair: tuple[TestImage, ...]
    excluded: dict[str, str]
    unchanged: frozenset[str]
    relabelled: dict[str, str]

    @property
    def known(self) -> int:
        """How many of the fair ones are in the champion's index too."""
        return len(self.unchanged) + len(self.relabelled)


def find_fair_images(challenger: Path, champion: Path, *, near_equal_bits: int) -> FairImages:
    """Sorts the challenger's test images by whether either model has seen them.

    An image was seen if its bytes are in a model's training or validation split, or in those of the models that it began with
    the weights of; or if it is near-equal to one of these, directly or through other images, as ingest groups them.

    An image is in the champion's index by its bytes; or, since its file may have been written anew, by being near-equal to an
    image there whose bytes are gone. Not to one that is still here: a newcomer that resembles it is another image.

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
    former = _find_former_labels(rows, rows_before, near_equal_bits)
    known = {image.path: (image.label, former[image.sha256]) for image in fair if image.sha256 in former}
    unchanged = frozenset(path for path, (label, labels) in known.items() if label in labels)
    relabelled = {path: min(labels) for path, (_, labels) in known.items() if path not in unchanged}
    return FairImages(tuple(fair), excluded, unchanged, relabelled)


def _find_former_labels(rows: Sequence[_Row], before: Sequence[_Row], near_equal_bits: int) -> dict[str, set[str]]:
    """By the SHA-256 of an image, the labels that it has in an earlier index: equal images may lie in several classes."""
    former: dict[str, set[str]] = defaultdict(set)
    for row in before:
        former[row["sha256"]].add(row["label"])
    present = {row["sha256"] for row in rows}
    gone = [row for row in before if row["sha256"] not in present]
    new = [row for row in rows if row["sha256"] not in former]
    groups = near_equal_groups([row["perceptual_hash"] for row in [*gone, *new]], max_bits=near_equal_bits).tolist()
    labels_of: dict[int, set[str]] = defaultdict(set)
    for row, group in zip(gone, groups, strict=False):
        labels_of[group].add(row["label"])
    for row, group in zip(new, groups[len(gone) :], strict=True):
        if group in labels_of:
            former[row["sha256"]] |= labels_of[group]
    return dict(former)


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
