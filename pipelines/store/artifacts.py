"""Artifacts under the home: made under a temporary name, flushed, then renamed, so that a reader never sees half of one.

An artifact is a folder with an `artifact.json` that names each file with its size and SHA-256. Its own name is the
digest of that content, so equal results are one folder and an altered one is noticed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.contracts import Artifact
from pipelines.errors import RunError

MANIFEST = "artifact.json"
# Files that hold only measured durations: kept and verified, but no part of the artifact's digest, so that work that was
# done again with the same result does not make the stages after it run again.
MEASURED = frozenset({"seconds.json"})


def artifact_path(home: Path, artifact: Artifact) -> Path:
    """The folder of an artifact."""
    return home / artifact.path


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """A new folder on the home's file system, removed on leaving; a full disk becomes one clear error.

    Folders that processes which no longer live have left behind are removed first: their locks can be taken.

    Raises:
        RunError: no space left on the device.
    """
    parent = home / "tmp"
    with disk_errors(home):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        folder = parent / uuid.uuid4().hex
        with FileLock(_lock_of(folder)):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" from any library into one clear line.

    Raises:
        RunError: in place of an `OSError` (also one wrapped by another library) that says so.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RunError) or not _is_disk_full(error):
            raise
        raise disk_full(place) from error


def disk_full(place: Path) -> RunError:
    """The error that says so of the device that holds a place, in one line."""
    return RunError(f"no space left on the device that holds {place}; free some and run it again: finished stages are kept")


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """A new folder that is renamed to `target` on leaving without an error, replacing what is there; else nothing stays.

    Raises:
        RunError: no space left on the device.
    """
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    earlier = temporary.with_name(f"{temporary.name}.earlier")
    with disk_errors(target):
        _recover(target)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for name in _file_names(temporary):
                flush(temporary / name)
            if target.exists():
                target.rename(earlier)
            temporary.rename(target)
        finally:
            if not target.exists() and earlier.exists():
                earlier.rename(target)
            shutil.rmtree(earlier, ignore_errors=True)
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def file_in_place(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, renamed to it on leaving without an error; else nothing stays.

    Raises:
        RunError: no space left on the device.
    """
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def publish(home: Path, stage: str, folder: Path) -> Artifact:
    """Turns a finished scratch folder into an artifact of `stage` and returns its descriptor.

    An intact artifact of equal content that is already there is used; a damaged one is replaced.
    """
    files = {name: _describe(folder / name) for name in sorted(_file_names(folder))}
    digest = _content_digest(files)
    write_json(folder / MANIFEST, {"stage": stage, "digest": digest, "files": files})
    for name in [*files, MANIFEST]:
        flush(folder / name)
    target = home / "artifacts" / stage / digest[:32]
    artifact = Artifact(path=target.relative_to(home).as_posix(), digest=digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not is_intact(home, artifact):
        target.rename(folder.parent / f"{folder.name}-replaced")
        shutil.rmtree(folder.parent / f"{folder.name}-replaced", ignore_errors=True)
    try:
        folder.rename(target)
    except OSError as error:
        # Another process published the same content in between, and may replace nothing that is whole.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_intact(home, artifact):
            raise
    flush(target.parent)
    return artifact


def is_intact(home: Path, artifact: Artifact) -> bool:
    """Whether an artifact is there, whole and unaltered. Reads all of its files."""
    folder = home / artifact.path
    try:
        files = read_json(folder / MANIFEST)["files"]
        if _content_digest(files) != artifact.digest or sorted(files) != sorted(set(_file_names(folder)) - {MANIFEST}):
            return False
        return all(_describe(folder / name) == described for name, described in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_json(path: Path, data: Any) -> None:
    """Writes JSON with sorted keys, so that equal data are equal bytes."""
    path.write_text(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_bytes())


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _content_digest(files: dict[str, Any]) -> str:
    lines = [f"{files[name]['sha256']} {name}" for name in sorted(files) if name not in MEASURED]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def flush(path: Path) -> None:
    """Makes sure that what was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recover(target: Path) -> None:
    """Puts a folder back that a process was replacing when it was killed, between its two renames."""
    for earlier in sorted(target.parent.glob(f".{glob.escape(target.name)}.????????.earlier")):
        if target.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            earlier.rename(target)


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # HDF5 and TensorFlow wrap the number into the text of an error of their own.
        if any(text in str(error) for text in ("No space left on device", "Disk quota exceeded", "errno = 28")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _lock_of(scratch: Path) -> Path:
    return scratch.with_suffix(".lock")


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob("*.lock"):
        lock = FileLock(path)
        try:
            with lock.acquire(blocking=False):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except Timeout:
            continue
