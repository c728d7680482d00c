"""What a scan remembers of each file, so that the next scan reads only files that changed.

A file counts as unchanged while its path, its size and its modification time are those of an earlier scan. As git does,
nothing is remembered of a file that was modified shortly before the scan or during it: it could change once more without
another time, the clocks of file systems being coarse.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from pipelines.store.remembered import read_remembered, write_remembered

# FAT's times are 2 s apart, the coarsest that are met; it also bridges small differences to the clock of a file server.
RACY_NS: Final = 2_000_000_000
STATES_SCHEMA: Final = pa.schema(
    [("path", pa.string()), ("size_bytes", pa.int64()), ("mtime_ns", pa.int64()), ("sha256", pa.string())]
)


class FileState(NamedTuple):
    """A file as it was when its digest was taken."""

    size_bytes: int
    mtime_ns: int
    sha256: str


def states_path(home: Path, root: Path, *, name: str = "") -> Path:
    """Where the states of a source's files are kept. A source that was moved is read once more.

    `name` tells sources apart whose paths are relative to one folder, such as two tables.
    """
    return home / "scans" / f"{hashlib.sha256(os.fsencode(root.resolve() / name)).hexdigest()[:32]}.parquet"


class FileStates:
    """The states of a source's files, of the last scan and of the one under way. Safe to use from several threads.

    Two scans of one source at the same time each write what they saw; the later one's table stays.

    Args:
        path: of the table, see `states_path`.
        verify: forget the last scan, so that every file is read.
    """

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        self._path = path
        self._started_ns = time.time_ns()
        self._earlier = {} if verify else _read(path)
        self._current: dict[str, FileState] = {}

    def recall(self, path: str, status: os.stat_result) -> str | None:
        """The SHA-256 of a file that is unchanged, or None where it has to be read."""
        state = self._earlier.get(path)
        if state is None or (state.size_bytes, state.mtime_ns) != (status.st_size, status.st_mtime_ns):
            return None
        self._current[path] = state
        return state.sha256

    def note(self, path: str, status: os.stat_result, sha256: str) -> None:
        """Remembers the digest of a file that was read after `status` was taken."""
        if status.st_mtime_ns <= self._started_ns - RACY_NS:
            self._current[path] = FileState(status.st_size, status.st_mtime_ns, sha256)

    def save(self) -> None:
        """Writes the states of this scan for the next one; files that are gone are forgotten.

        Raises:
            RunError: no space left on the device.
        """
        if self._current == self._earlier:
            return
        states = self._current.values()
        columns = {name: [getattr(state, name) for state in states] for name in FileState._fields}
        table = pa.table({"path": list(self._current), **columns}, schema=STATES_SCHEMA)
        write_remembered(self._path, table)


def _read(path: Path) -> dict[str, FileState]:
    table = read_remembered(path, STATES_SCHEMA)
    paths, *values = (table[name].to_pylist() for name in STATES_SCHEMA.names)
    return dict(zip(paths, map(FileState, *values), strict=True))
