"""Scan: the files of a source with the digest of each, as a small table that ingest goes by."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Listing
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import FoundFile, digest_files, find_images
from pipelines.sources.states import FileStates, states_path
from pipelines.store.artifacts import artifact_path, publish, scratch_folder

_COLUMNS: Final = tuple(field.name for field in fields(FoundFile))


def scan_source(
    home: Path,
    root: Path,
    *,
    listed: tuple[list[str], list[FoundFile]] | None = None,
    name: str = "",
    verify: bool = False,
    report: Report = ignore_progress,
) -> Listing:
    """Takes the digest of each file of a source. Never cached: its own digest is what later stages are keyed by.

    Files whose path, size and modification time are those of the last scan are not read again, unless `verify` is set.

    Args:
        home: where the listing goes.
        root: the folder that the files' paths are relative to.
        listed: classes and files, as a `Source` finds them; None for class folders.
        name: of the source, where several lie in one folder.
        verify: read all files.
        report: told how many files are settled.
    """
    classes, found = listed or find_images(root)
    states = FileStates(states_path(home, root, name=name), verify=verify)
    files = digest_files(root, found, states=states, report=report)
    states.save()
    with scratch_folder(home) as folder:
        _write_listing(folder / "listing.parquet", files, classes)
        artifact = publish(home, "scan", folder)
    return Listing(artifact=artifact, classes=tuple(classes), files=len(files))


def read_listing(home: Path, listing: Listing) -> list[FoundFile]:
    """The files of a scan, in its order."""
    table = pq.read_table(artifact_path(home, listing.artifact) / "listing.parquet")
    return list(map(FoundFile, *(table[name].to_pylist() for name in _COLUMNS)))


def _write_listing(path: Path, files: list[FoundFile], classes: list[str]) -> None:
    schema = pa.schema([(name, pa.int64() if name == "size_bytes" else pa.string()) for name in _COLUMNS])
    # An empty class has no file that would tell of it.
    schema = schema.with_metadata({"classes": "\0".join(classes)})
    columns = [[getattr(file, name) for file in files] for name in _COLUMNS]
    pq.write_table(pa.table(columns, schema=schema), path)
