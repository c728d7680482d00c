"""What was found out about images, kept in the home by content: no image is examined twice, whatever it is called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from pipelines.sources.examine import EXAMINE_VERSION, ImageFacts
from pipelines.store.remembered import read_remembered, write_remembered

Outcome = ImageFacts | str  # the facts of an image, or the reason why a file is bad

_FIELDS: Final = tuple(field.name for field in fields(ImageFacts))
_NUMBERS: Final = {"width_px", "height_px", "orientation", "frames"}
FACTS_SCHEMA: Final = pa.schema(
    [
        ("sha256", pa.string()),
        ("reason", pa.string()),  # null for an image
        *((name, pa.int32() if name in _NUMBERS else pa.string()) for name in _FIELDS),  # null for a bad file
    ]
)


def facts_path(home: Path, *, max_pixels: int) -> Path:
    """Where the outcomes of `examine_image` are kept: one table for each version of it and each limit."""
    return home / "facts" / f"v{EXAMINE_VERSION}-{max_pixels}.parquet"


def read_facts(path: Path, digests: Collection[str]) -> dict[str, Outcome]:
    """What is known of some contents, by their SHA-256; those that were never examined are left out."""
    table = read_remembered(path, FACTS_SCHEMA)
    table = table.filter(pc.is_in(table["sha256"], value_set=pa.array(list(digests), pa.string())))
    facts = map(ImageFacts, *(table[name].to_pylist() for name in _FIELDS))
    known = zip(table["sha256"].to_pylist(), table["reason"].to_pylist(), facts, strict=True)
    return {digest: image if reason is None else reason for digest, reason, image in known}


def extend_facts(path: Path, found: Mapping[str, Outcome]) -> None:
    """Adds outcomes by the SHA-256 of the content, in one step. Runs at the same time lose nothing of each other's.

    Tables of other versions of the examination are removed: nobody reads them any more.

    Raises:
        RunError: no space left on the device.
    """
    if not found:
        return
    rows = [{"sha256": digest, **_describe(outcome)} for digest, outcome in found.items()]
    added = pa.Table.from_pylist(rows, schema=FACTS_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        earlier = read_remembered(path, FACTS_SCHEMA)
        earlier = earlier.filter(pc.invert(pc.is_in(earlier["sha256"], value_set=pa.array(list(found), pa.string()))))
        write_remembered(path, pa.concat_tables([earlier, added]))
    for other in path.parent.glob("v*.parquet"):
        if not other.name.startswith(f"v{EXAMINE_VERSION}-"):
            other.unlink(missing_ok=True)
            other.with_suffix(".lock").unlink(missing_ok=True)


def _describe(outcome: Outcome) -> Mapping[str, str | int]:
    return {"reason": outcome} if isinstance(outcome, str) else vars(outcome)
