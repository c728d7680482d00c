"""What the home remembers of its registrations, so that a run that repeats another needs neither MLflow nor a network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from pipelines.contracts import Candidate, Descriptor
from pipelines.registry.connection import Registry
from pipelines.store.artifacts import file_in_place


class Record(Descriptor):
    """One content in one registry.

    Attributes:
        version: of the registered model.
        settled: the gate settings that the candidate was judged with; None where it was not judged yet.
    """

    version: int
    settled: str | None = None


def read_record(registry: Registry, candidate: Candidate) -> Record | None:
    """The record of a content; None where there is none, or where the home's database is gone, and the version with it."""
    if not registry.exists:
        return None
    try:
        return Record.model_validate_json(_path(registry, candidate.name, candidate.content).read_bytes())
    except (OSError, ValidationError):
        return None


def write_record(registry: Registry, candidate: Candidate, record: Record) -> None:
    """Keeps a record, in one step."""
    with file_in_place(_path(registry, candidate.name, candidate.content)) as temporary:
        temporary.write_text(record.model_dump_json(), encoding="utf-8")


def forget_record(registry: Registry, name: str, content: str) -> None:
    """Forgets a content of a registered model, whose version is about to go."""
    _path(registry, name, content).unlink(missing_ok=True)


def _path(registry: Registry, name: str, content: str) -> Path:
    key = json.dumps([registry.address, name, content])
    return registry.folder / "records" / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
