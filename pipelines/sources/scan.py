"""Scan: the files of a source with the digest of each, as a small table that ingest goes by."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Listing
from pipelines.sources.folder import FoundFile, digest_files, find_images
from pipelines.store.artifacts import artifact_path, publish, scratch_folder


def scan_source(home: Path, root: Path, *, listed: tuple[list[str], list[FoundFile]] | None = None) -> Listing:
    """Takes the digest of each file of a source. Never cached: its own digest is what later stages are keyed by.

    Args:
        home: where the listing goes.
        root: the folder that the files' paths are relative to.
        listed: classes and files, as a `Source` finds them; None for class folders.
    """
    classes, found = listed or find_images(root)
    files = digest_files(root, found)
    with scratch_folder(home) as folder:
        names = [field.name for field in fields(FoundFile)]
        schema = pa.schema([(name, pa.int64() if name == "size_bytes" else pa.string()) for name in names])
        table = pa.Table.from_pylist([asdict(file) for file in files], schema=schema)
        # An empty class has no file that would tell of it.
        pq.write_table(table.replace_schema_metadata({"classes": "\0".join(classes)}), folder / "listing.parquet")
        artifact = publish(home, "scan", folder)
    return Listing(artifact=artifact, classes=tuple(classes), files=len(files))


def read_listing(home: Path, listing: Listing) -> list[FoundFile]:
    """The files of a scan, in its order."""
    table = pq.read_table(artifact_path(home, listing.artifact) / "listing.parquet")
    return [FoundFile(**row) for row in table.to_pylist()]
