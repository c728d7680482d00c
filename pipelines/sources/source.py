"""SOURCE as a command is told it: a folder, `tfds:NAME` or a table, told apart by its text. Imports no TensorFlow.

A kind of source is one file of this package and a line in `open_source`. What it lists is scanned, examined and split alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.config import TfdsConfig
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import FoundFile, find_images

TABLE_SUFFIXES = (".csv", ".parquet")
TFDS_PREFIX = "tfds:"

Found = tuple[list[str], list[FoundFile]]


class Source(Protocol):
    """Where images come from."""

    @property
    def root(self) -> Path:
        """Absolute path of the folder that the files' paths are relative to."""

    @property
    def name(self) -> str:
        """What the data set is called where the recipe does not say."""

    def peek(self, *, least_classes: int = 2) -> Found | None:
        """What can be listed at once: as `find`, or None where the images must be fetched before that.

        Raises:
            InputError: the source can't be used.
        """

    def find(self, *, least_classes: int = 2, report: Report = ignore_progress) -> Found:
        """Lists the class names in label order and the image files, without opening any of them.

        Args:
            least_classes: fewer are refused; a model can't be trained on one class, but judged on it.
            report: told how many images were fetched, where that has to be done first.

        Raises:
            InputError: the source can't be used.
        """


@dataclass(frozen=True)
class FolderSource:
    """Class folders; see `pipelines.sources.folder`."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    def peek(self, *, least_classes: int = 2) -> Found:
        """As `Source.peek`."""
        return find_images(self.root, least_classes=least_classes)

    def find(self, *, least_classes: int = 2, report: Report = ignore_progress) -> Found:  # noqa: ARG002 (it takes no time)
        """As `Source.find`."""
        return self.peek(least_classes=least_classes)


def open_source(text: str, *, home: Path, tfds: TfdsConfig) -> Source:
    """The source that a text means; nothing is read yet.

    Args:
        text: SOURCE. A folder whose name looks like one of the others can be written with ./ before it.
        home: absolute path; where TFDS data sets are written out.
        tfds: the recipe's section.

    Raises:
        InputError: `tfds:` is followed by something that can't be a name.
    """
    path = Path(text).absolute()
    if text.startswith(TFDS_PREFIX):
        from pipelines.sources.tfds import open_tfds

        return open_tfds(text.removeprefix(TFDS_PREFIX), home=home, config=tfds)
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        from pipelines.sources.table import TableSource

        return TableSource(path)
    return FolderSource(path)
