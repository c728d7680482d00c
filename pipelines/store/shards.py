"""A shard of the image store: an Arrow IPC file of one record batch, named by the SHA-256 of its own bytes.

Shards never change. One whose bytes do not match its name is damaged; its images are made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import RunError
from pipelines.store.artifacts import file_digest, file_in_place, read_json, write_json

SUFFIX = ".arrow"
VERIFIED = "verified.json"


def write_shard(folder: Path, scratch: Path, batch: pa.RecordBatch) -> str:
    """Writes a shard under a temporary name in `scratch`, flushes it, renames it into `folder` and returns its name."""
    temporary = scratch / f"shard{SUFFIX}"
    digest = hashlib.sha256()
    with temporary.open("wb", buffering=0) as file:
        with pa.ipc.new_file(_Tee(file, digest), batch.schema) as writer:
            writer.write_batch(batch)
        os.fsync(file.fileno())
    name = f"{digest.hexdigest()}{SUFFIX}"
    folder.mkdir(parents=True, exist_ok=True)
    temporary.rename(folder / name)
    return name


class _Tee(io.RawIOBase):
    """Writes to a file and takes the digest of it, so that the file need not be read for that."""

    def __init__(self, file: io.FileIO, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._digest.update(view)
        written = 0
        while written < len(view):  # the system may take less than all at once
            written += self._file.write(view[written:])
        return written


def open_shard(path: Path) -> pa.RecordBatch:
    """Maps a shard into memory: its bytes stay in the page cache, not in this process's own memory."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def has_schema(path: Path, schema: pa.Schema) -> bool:
    """Whether a file is a shard with these columns."""
    try:
        found: bool = open_shard(path).schema.equals(schema)
    except (OSError, ValueError, pa.ArrowException):
        return False
    return found


def damaged_shards(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of some shards that are gone, or whose bytes do not match their name.

    The bytes are read only where size or modification time differ from those at the last check: a store may be far
    larger than what can be hashed on every run.
    """
    verified = _read_verified(folder)
    found = {name: _size_and_time(folder / name) for name in names}
    unsure = [name for name, seen in found.items() if seen is not None and verified.get(name) != seen]
    intact = [name for name in unsure if _matches_name(folder / name)]
    note_intact(folder, intact)
    damaged = set(unsure) - set(intact)
    return [name for name, seen in found.items() if seen is None or name in damaged]


def forget_intact(home: Path) -> None:
    """Forgets which shards of all stores were checked, so that their bytes are read again."""
    for kind in ("images", "activations"):
        for note in (home / kind).rglob(VERIFIED):
            note.unlink(missing_ok=True)


def note_intact(folder: Path, names: Sequence[str]) -> None:
    """Remembers that the bytes of some shards match their names, in one write however many there are."""
    if not names:
        return
    seen = {name: _size_and_time(folder / name) for name in names}
    # Without this note they are merely hashed once more, so a full disk must not end the run here.
    with contextlib.suppress(OSError, RunError), file_in_place(folder / VERIFIED) as temporary:
        write_json(temporary, {**_read_verified(folder), **seen})


def _matches_name(path: Path) -> bool:
    try:
        return f"{file_digest(path)}{SUFFIX}" == path.name
    except OSError:
        return False


def _size_and_time(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_verified(folder: Path) -> dict[str, list[int]]:
    try:
        content = read_json(folder / VERIFIED)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
