"""The records of stages, by when they were last used: those that stay say which artifacts and shards must stay with them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.store.sweep import Leftover, Named, find_leftovers, folder_bytes


def find_unused(home: Path, *, before: float) -> Iterator[Leftover]:
    """What no stage has used since, the records first: without its record an artifact is nothing that a run would look for.

    Checkpoints count from the last one that was saved.

    Args:
        home: the home.
        before: seconds since the epoch.
    """
    named = Named()
    for path in sorted((home / "records").iterdir()):
        if path.stat().st_mtime < before:
            yield Leftover("records of stages", path, folder_bytes(path))
        else:
            named.add(_read(path))
    for path in home.glob("checkpoints/*"):
        if path.stat().st_mtime < before:
            yield Leftover("checkpoints", path, folder_bytes(path))
    yield from find_leftovers(home, named, before=before)
    for path in home.glob("locks/*.lock"):
        if path.stat().st_mtime < before:
            yield Leftover("records of stages", path, 0)


def days_ago(days: float) -> float:
    """A moment in seconds since the epoch."""
    return time.time() - days * 86_400


def _read(path: Path) -> object:
    """The descriptor that Prefect keeps under a stage's key, as data; None where it can't be read, and is no hit."""
    try:
        return json.loads(json.loads(path.read_bytes())["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
