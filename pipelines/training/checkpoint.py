"""Checkpoints of a phase: everything that the next step depends on, written whole or not at all.

A file is named by its step and by the SHA-256 of its content, so that a truncated or altered one is noticed and the one
before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.store.artifacts import disk_errors, file_digest, file_in_place, flush, write_json

SUFFIX = ".npz"
KEPT = 2  # the newest, and the one before in case that one is damaged
_UNFINISHED = "unfinished.tmp"
_FAILURE = "failure.json"
_NOTES = "notes"


@dataclass(frozen=True)
class Checkpoint:
    """A phase after some of its steps.

    Attributes:
        step: how many were done.
        notes: what goes into JSON.
        arrays: lists of arrays of any dtype, by name.
    """

    step: int
    notes: Mapping[str, Any]
    arrays: Mapping[str, Sequence[NDArray[Any]]]


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of one stage with one set of inputs lie, and how often one is written. One writer at a time.

    Attributes:
        folder: of the files; made when the first one is written.
        every_steps: how many steps lie between two, besides the one at each epoch's end.
    """

    folder: Path
    every_steps: int

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint under a temporary name, flushes and renames it, and then removes all but the last two.

        Raises:
            RunError: no space left on the device; the last good one stays.
        """
        unfinished = self.folder / _UNFINISHED
        try:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                _write(unfinished, checkpoint)
                flush(unfinished)
                unfinished.rename(self.folder / f"{checkpoint.step:010d}-{file_digest(unfinished)}{SUFFIX}")
                flush(self.folder)
        finally:
            unfinished.unlink(missing_ok=True)
        for path in self._newest_first()[KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self, *, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None. Damaged ones are said and removed: they would pass for the newest."""
        paths = self._newest_first()
        for number, path in enumerate(paths, start=1):
            if _is_whole(path):
                return _read(path)
            path.unlink(missing_ok=True)
            rest = "the one before it is tried" if number < len(paths) else "none is left, and the phase starts anew"
            say(f"checkpoint {path} is truncated or altered and is removed; {rest}")
        return None

    def write_failure(self, content: Mapping[str, Any]) -> Path:
        """Writes what is known of a failure beside the checkpoints, which stay as they are; returns the file's path.

        Raises:
            RunError: no space left on the device.
        """
        path = self.folder / _FAILURE
        with file_in_place(path) as unfinished:
            write_json(unfinished, content)
        return path

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        paths = list(self.folder.glob(f"*-*{SUFFIX}"))
        return sorted(paths, key=lambda path: (path.name.partition("-")[0], path.stat().st_mtime_ns), reverse=True)


def _is_whole(path: Path) -> bool:
    try:
        return path.stem.partition("-")[2] == file_digest(path)
    except OSError:
        return False


def _write(path: Path, checkpoint: Checkpoint) -> None:
    counts = {name: len(arrays) for name, arrays in checkpoint.arrays.items()}
    notes = json.dumps({"step": checkpoint.step, "notes": checkpoint.notes, "counts": counts})
    named: dict[str, Any] = {_NOTES: np.frombuffer(notes.encode(), np.uint8)}
    for name, arrays in checkpoint.arrays.items():
        named |= {f"{name}-{number}": array for number, array in enumerate(arrays)}
    with path.open("wb") as file:
        np.savez(file, **named)


def _read(path: Path) -> Checkpoint:
    with np.load(path, allow_pickle=False) as stored:
        content = json.loads(stored[_NOTES].tobytes())
        counts = content["counts"].items()
        arrays = {name: [stored[f"{name}-{number}"] for number in range(count)] for name, count in counts}
    return Checkpoint(step=content["step"], notes=content["notes"], arrays=arrays)
