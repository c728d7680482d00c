"""Whether a source has changed and is quiet again, told from looks at it that may be minutes and processes apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.sources.source import Source
from pipelines.store.artifacts import file_in_place

Verdict = Literal["changed", "settling", "known"]


class Watched(BaseModel):
    """What is remembered of a source between two looks.

    Attributes:
        digest: of its content at the last look, see `content_digest`.
        since: when the look ended that saw this digest first, in seconds since 1970.
        emitted: the digest that was announced, where it is this one; None where it was not yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    since: float
    emitted: str | None = None


def judge_look(
    before: Watched | None, digest: str, *, started: float, ended: float, settle_seconds: float
) -> tuple[Watched, Verdict]:
    """What to remember of a look, and whether a change is to be announced now.

    A digest is quiet once two looks saw it and `settle_seconds` went by between them: whatever changed during one of them
    leaves another digest to the other. So no state is announced that was seen while it was being written, whatever the
    number of seconds.

    Args:
        before: what was remembered; None at the first look.
        digest: of the content now.
        started: when this look began, in seconds since 1970.
        ended: when it ended.
        settle_seconds: how long the content must have been the same.
    """
    if before is None or digest != before.digest:
        # A content that comes back is announced again: who heard of it may have found another one meanwhile, and done nothing.
        return Watched(digest=digest, since=ended), "settling"
    if digest == before.emitted:
        return before, "known"
    if started < before.since:  # the clock was set back
        return before.model_copy(update={"since": ended}), "settling"
    return before, "changed" if started - before.since >= settle_seconds else "settling"


def watched_path(home: Path, source: Source, *, dataset: str) -> Path:
    """Where it is remembered for whom this source is watched."""
    content = os.fsencode(source.root.resolve()) + b"\0" + os.fsencode(f"{source.name}\0{dataset}")
    return home / "watched" / f"{hashlib.sha256(content).hexdigest()[:32]}.json"


def read_watched(path: Path) -> Watched | None:
    """What is remembered; None where there is nothing, or nothing that can be read: then the content is announced once more."""
    try:
        return Watched.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_watched(path: Path, watched: Watched) -> None:
    """Remembers it, in one step.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(path) as temporary:
        temporary.write_text(watched.model_dump_json(), encoding="utf-8")
