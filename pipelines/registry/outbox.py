"""What could not be told to the registry waits in the home until it can: nothing is lost, and nothing is told twice.

A waiting run is a folder with its candidate and a copy of its run folder, put there in one step; a waiting decision is one
with the registration and the decision. Each is removed after it was delivered. A process that is killed in between delivers
again, which does no harm: the registry knows what content it has.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.contracts import Candidate, Descriptor, Registration
from pipelines.errors import RegistryUnreachableError, RunError, one_line
from pipelines.registry.connection import Registry, registry_errors
from pipelines.registry.promote import settle
from pipelines.registry.register import register
from pipelines.store.artifacts import folder_in_place

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
_ENTRY, _RUN = "entry.json", "run"


class Entry(Descriptor):
    """One thing that waits.

    Attributes:
        address: of the registry that it is for.
        candidate: the run, whose folder lies beside this.
        registration: None for a run; for a decision, what it is about.
        decision: of the gate; None for a run.
    """

    address: str
    candidate: Candidate
    registration: Registration | None = None
    decision: dict[str, Any] | None = None


def queue_run(registry: Registry, candidate: Candidate, folder: Path) -> None:
    """Keeps a run for later; one of the same content that waits already is enough.

    Raises:
        RunError: no space left on the device.
    """
    entry = Entry(address=registry.address, candidate=candidate)
    waiting = [other.candidate for _, other in waiting_entries(registry) if other.registration is None]
    if any((other.name, other.content) == (candidate.name, candidate.content) for other in waiting):
        return
    with folder_in_place(_new_place(registry)) as temporary:
        shutil.copytree(folder, temporary / _RUN)
        (temporary / _ENTRY).write_text(entry.model_dump_json(), encoding="utf-8")


def queue_decision(registry: Registry, registration: Registration, decision: Mapping[str, Any]) -> None:
    """Keeps a gate's decision for later.

    Raises:
        RunError: no space left on the device.
    """
    entry = Entry(
        address=registry.address, candidate=registration.candidate, registration=registration, decision=dict(decision)
    )
    with folder_in_place(_new_place(registry)) as temporary:
        (temporary / _ENTRY).write_text(entry.model_dump_json(), encoding="utf-8")


def waiting_entries(registry: Registry) -> list[tuple[Path, Entry]]:
    """What waits for this registry, oldest first; what can't be read is left alone and named in the log."""
    entries = []
    for path in sorted((registry.folder / "outbox").glob(f"[0-9]*/{_ENTRY}")):
        try:
            entry = Entry.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            logger.warning("%s waits for the registry and can't be read (%s)", path, one_line(error))
            continue
        if entry.address == registry.address:
            entries.append((path.parent, entry))
    return entries


def deliver(registry: Registry, client: MlflowClient, *, note: Callable[[str], None]) -> int:
    """Tells the registry all that waits for it, in the order in which it came; returns how many entries were delivered.

    What the registry refuses stays, and does not keep the rest from being delivered. The lock of the registry must be held.

    Args:
        registry: where.
        client: connected to it.
        note: hears in one line of what was refused, and of a decision that came too late.

    Raises:
        RegistryUnreachableError: the connection broke; what was not delivered stays.
    """
    delivered = 0
    for folder, entry in waiting_entries(registry):
        try:
            with registry_errors(registry):
                _deliver(registry, client, folder, entry, note)
        except RegistryUnreachableError:
            raise
        except RunError as error:
            note(f"{error}; it still waits in {folder}")
            continue
        _remove(folder)
        delivered += 1
    return delivered


def _deliver(registry: Registry, client: MlflowClient, folder: Path, entry: Entry, note: Callable[[str], None]) -> None:
    if entry.registration is None or entry.decision is None:
        register(registry, client, entry.candidate, folder / _RUN)
        return
    if not settle(registry, client, entry.registration, entry.decision) and entry.decision["promote"]:
        note(f"`{entry.candidate.name}` got another champion meanwhile; the next run like this one is judged against that")


def _new_place(registry: Registry) -> Path:
    """A name that sorts after those that are there."""
    parent = registry.folder / "outbox"
    taken = [int(path.name.partition("-")[0]) for path in parent.glob("[0-9]*-*")] if parent.exists() else []
    number_ms = max([round(time.time() * 1000), *(number + 1 for number in taken)])
    return parent / f"{number_ms:015d}-{uuid.uuid4().hex[:8]}"


def _remove(folder: Path) -> None:
    """In one step: half an entry is none."""
    gone = folder.with_name(f".{folder.name}.delivered")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
