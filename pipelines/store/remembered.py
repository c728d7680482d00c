"""Tables in the home that only save work: written in one step, and left aside when they are damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import one_line
from pipelines.store.artifacts import file_in_place

logger = logging.getLogger(__name__)


def read_remembered(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads a table; an empty one where there is none yet, or where it is damaged, which is said in the log."""
    try:
        # Not `pq.read_table`, which takes a folder `a=b` on the way to the file for a column.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        if not table.schema.equals(schema):
            raise ValueError(f"it has the columns {', '.join(table.schema.names)}")  # noqa: TRY301 (one way to be damaged)
        table.validate(full=True)
    except FileNotFoundError:
        return schema.empty_table()
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s is damaged and is made anew (%s)", path, one_line(error))
        return schema.empty_table()
    return table


def write_remembered(path: Path, table: pa.Table) -> None:
    """Writes a table beside its place and renames it, so that a reader at the same moment sees the old one or the new.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
