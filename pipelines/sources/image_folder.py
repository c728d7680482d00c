"""`tfds:image_folder`: TFDS's `ImageFolder` without TFDS, read in place, since it is files already. Imports no TensorFlow.

The folder holds SPLIT/CLASS/FILE, with split folders of any names. Besides what TFDS takes, files may lie deeper, and be of all
the formats that are read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import SPLITS, TfdsSplits
from pipelines.errors import InputError
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import SPLIT_FOLDERS, FoundFile, find_images


@dataclass(frozen=True)
class ImageFolderSource:
    """Split folders of any names, chosen by `tfds.splits`.

    Attributes:
        root: absolute path of the folder.
        splits: as in the recipe.
    """

    root: Path
    splits: TfdsSplits

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    def peek(self, *, least_classes: int = 2) -> tuple[list[str], list[FoundFile]]:
        """As `Source.peek`."""
        if not self.root.is_dir():
            raise InputError(f"`tfds.data_dir` must be an existing folder; received {str(self.root)!r}")
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        chosen = choose_splits(folders, self.splits)
        if unknown := [name for name in chosen.values() if name not in folders]:
            raise InputError(f"`tfds.splits` names {unknown[0]!r}; {str(self.root)!r} has {', '.join(folders)}")
        parts = [(self.root / name, split) for split, name in chosen.items()]
        return find_images(self.root, least_classes=least_classes, parts=parts)

    def find(
        self,
        *,
        least_classes: int = 2,
        report: Report = ignore_progress,  # noqa: ARG002 (it takes no time)
    ) -> tuple[list[str], list[FoundFile]]:
        """As `Source.find`."""
        return self.peek(least_classes=least_classes)


def choose_splits(available: Sequence[str], wanted: TfdsSplits) -> dict[str | None, str]:
    """Which split of the data set each of ours is, in our order; None stands for one that is to be drawn.

    Raises:
        InputError: nothing is said, and the names do not tell.
    """
    chosen = {split: getattr(wanted, split) for split in SPLITS if getattr(wanted, split)}
    if not chosen and len(available) == 1:
        chosen = {"train": available[0]}
    if not chosen:
        ours = {split: name for name, split in reversed(SPLIT_FOLDERS.items()) if name in available}
        chosen = {split: ours[split] for split in SPLITS if split in ours}
    if not chosen:
        there = ", ".join(available) or "none"
        raise InputError(f"`tfds.splits` must say which to take, such as --set tfds.splits.train=NAME; there are: {there}")
    return {None if chosen.keys() == {"train"} else split: text for split, text in chosen.items()}
