"""What lies in a home and is of no use any more, by what is still named and by age; removed so that nothing is half gone.

All that is looked at here can be made again: the home's ledger of splits, what it knows of files, and its registry are not.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.store.artifacts import MANIFEST
from pipelines.store.shards import SUFFIX, VERIFIED

_STORES = ("images", "activations")


@dataclass
class Named:
    """What records name, as paths relative to the home with forward slashes.

    Attributes:
        artifacts: folders.
        shards: files of the stores.
    """

    artifacts: set[str] = field(default_factory=set)
    shards: set[str] = field(default_factory=set)

    def add(self, data: Any) -> None:
        """Takes up what a descriptor names, given as JSON data, whichever version of imagemill wrote it."""
        if isinstance(data, dict):
            if isinstance(data.get("path"), str) and "digest" in data:
                self.artifacts.add(data["path"])
            if isinstance(data.get("store"), str) and isinstance(data.get("shards"), list):
                self.shards.update(f"{data['store']}/{name}" for name in data["shards"])
            data = list(data.values())
        if isinstance(data, list):
            for value in data:
                self.add(value)


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that is of no use.

    Attributes:
        kind: what it is, in words, for a table.
        path: of it.
        size_bytes: of its files.
    """

    kind: str
    path: Path
    size_bytes: int


def find_leftovers(home: Path, named: Named, *, before: float) -> Iterator[Leftover]:
    """What no record names and nobody has changed since.

    Args:
        home: the home.
        named: by the records that are to stay.
        before: seconds since the epoch; what is younger stays, such as what an interrupted run has stored.
    """
    for path in (manifest.parent for manifest in home.glob(f"artifacts/*/*/{MANIFEST}")):
        if path.relative_to(home).as_posix() not in named.artifacts:
            yield from _old("results of stages", path, before)
    for store in _STORES:
        for path in (home / store).rglob(f"*{SUFFIX}"):
            if path.relative_to(home).as_posix() not in named.shards:
                yield from _old(f"{store} of earlier stores", path, before)
    for path in home.glob("registry/fetched/*/*"):
        if path.is_dir() and not path.name.startswith("."):
            yield from _old("fetched models", path, before)
    for path in home.glob("answers/*.json"):
        yield from _old("answers of models to the gate", path, before)
    for path in home.glob("logs/*.log"):
        yield from _old("logs of failed runs", path, before)
    yield from _find_unfinished(home, before)


def _find_unfinished(home: Path, before: float) -> Iterator[Leftover]:
    """What a process was making, replacing or removing when it was killed."""
    kind = "unfinished work of killed processes"
    for path in home.glob("tmp/*"):
        if path.is_dir() and not path.with_suffix(".lock").exists():  # others are removed by the next run
            yield Leftover(kind, path, folder_bytes(path))
    for pattern in ("challengers/.*", "registry/outbox/.*", "registry/fetched/*/.*"):
        for path in home.glob(pattern):
            if path.suffix != ".earlier":  # it may be all that is left of what was being replaced
                yield from _old(kind, path, before)


def remove(home: Path, path: Path) -> None:
    """Removes a file, or a folder after it was renamed: one that a killed process left half removed lies in the scratch folder.

    Nothing happens where it is gone already.
    """
    try:
        if not path.is_dir():
            path.unlink()
            return
        gone = home / "tmp" / f"{uuid.uuid4().hex}-unused"
        gone.parent.mkdir(exist_ok=True)
        path.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def remove_empty_stores(home: Path) -> None:
    """Removes the folders of stores that have no shard left, and what was noted about shards of theirs."""
    for store in _STORES:
        folders = [path for path in (home / store).rglob("*") if path.is_dir()]
        for folder in sorted(folders, reverse=True):  # the inner ones first
            if all(path.name == VERIFIED for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)


def folder_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
    return sum(file.stat().st_size for file in files)


def _old(kind: str, path: Path, before: float) -> Iterator[Leftover]:
    try:
        if path.stat().st_mtime < before:
            yield Leftover(kind, path, folder_bytes(path))
    except FileNotFoundError:  # of a run that goes on while one only looks
        return
