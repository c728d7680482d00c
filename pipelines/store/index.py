"""`index.parquet`: every file that a source holds, usable or not, as one Parquet table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

OK, BAD = "ok", "bad"

INDEX_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the source
        ("sha256", pa.string()),  # of the file's bytes; null where it could not be read
        ("label", pa.string()),
        ("split", pa.string()),  # train | validation | test; null where status is bad
        ("width", pa.int32()),  # px, upright; null where status is bad
        ("height", pa.int32()),
        ("format", pa.string()),  # by content, as Pillow names it
        ("bytes", pa.int64()),
        ("status", pa.string()),  # ok | bad
        ("reason", pa.string()),  # why it is bad; null otherwise
        ("mode", pa.string()),  # of the pixels as stored, as Pillow names it
        ("orientation", pa.int8()),  # EXIF, 1 to 8
        ("perceptual_hash", pa.string()),  # hex
        ("group", pa.int64()),  # equal and near-equal images share one; null where status is bad
    ]
)


def write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the columns of `INDEX_SCHEMA`; missing ones become null. Equal rows give equal bytes."""
    columns = {name: [row.get(name) for row in rows] for name in INDEX_SCHEMA.names}
    pq.write_table(pa.table(columns, schema=INDEX_SCHEMA), path)


def read_index(path: Path) -> list[dict[str, Any]]:
    """Reads an index back as one dictionary per file."""
    rows: list[dict[str, Any]] = pq.read_table(path, schema=INDEX_SCHEMA).to_pylist()
    return rows


def read_usable(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of the rows that can be used, in the order of the index: no Python object per image is made."""
    return pq.read_table(path, columns=list(columns), filters=[("status", "==", OK)])


def usable(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that can be used, in the order of the index."""
    return [row for row in rows if row["status"] == OK]
