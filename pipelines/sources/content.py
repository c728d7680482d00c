"""The content of a source as one digest: the same while the same images have the same labels, whatever the files' names are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.contracts import Listing
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import FoundFile, digest_files
from pipelines.sources.scan import read_listing
from pipelines.sources.source import Source
from pipelines.sources.states import FileStates, states_path


def digest_source(home: Path, source: Source, *, report: Report = ignore_progress) -> str:
    """Looks at each file of a source and reads those that changed, as a scan does; nothing but their states is written.

    Raises:
        InputError: the source can't be used as it is.
        RunError: no space left on the device.
    """
    classes, found = source.find(report=report)
    states = FileStates(states_path(home, source.root, name=source.name))
    files = digest_files(source.root, found, states=states, report=report)
    states.save()
    return content_digest(classes, files)


def digest_listing(home: Path, listing: Listing) -> str:
    """The content of what a scan found."""
    return content_digest(listing.classes, read_listing(home, listing))


def content_digest(classes: Sequence[str], files: Iterable[FoundFile]) -> str:
    """SHA-256 (hex) over the classes, and over the content, the label and the given split of each file, in no order.

    A file that can't be read stands for itself by its path and the reason.
    """
    contents = sorted(
        json.dumps([file.label, file.split, file.sha256, None if file.sha256 else (file.path, file.problem)]) for file in files
    )
    return hashlib.sha256(json.dumps([list(classes), contents]).encode()).hexdigest()
