"""What a run asks of the registry, whether it is there or not: a run never fails for want of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.contracts import Candidate, Registration
from pipelines.errors import RunError
from pipelines.registry.connection import Registry, connected
from pipelines.registry.outbox import deliver, queue_decision, queue_run, waiting_entries
from pipelines.registry.promote import settle
from pipelines.registry.register import known_registration, register, registry_lock
from pipelines.store.artifacts import scratch_folder


def register_run(
    registry: Registry, candidate: Candidate, write_folder: Callable[[Path], None], *, note: Callable[[str], None]
) -> Registration:
    """Registers a finished run, after all that waits; where that can't be done now, the run waits too.

    Args:
        registry: where.
        candidate: what the run is known by.
        write_folder: writes the run folder to a path; not called where the candidate was registered and judged before, and
            nothing waits.
        note: hears in one line why the run has to wait.

    Raises:
        RunError: no space left on the device.
    """
    known = known_registration(registry, candidate)
    if known is not None and not waiting_entries(registry):
        return known
    with registry_lock(registry), scratch_folder(registry.home) as scratch:
        folder = scratch / "run"
        write_folder(folder)
        try:
            with connected(registry) as client:
                if delivered := deliver(registry, client, note=note):
                    note(f"{delivered} runs and decisions that waited for the registry are delivered")
                return register(registry, client, candidate, folder)
        except RunError as error:
            if known is not None:
                return known
            queue_run(registry, candidate, folder)
            note(f"{error}; the run waits in {registry.folder / 'outbox'} and is registered by the next one")
            return Registration(candidate=candidate, version=None, champion=None, settled=False)


def settle_run(
    registry: Registry, registration: Registration, decision: Mapping[str, Any], *, note: Callable[[str], None]
) -> bool:
    """Promotes a registered version or leaves it, as the gate decided; where that can't be done now, the decision waits.

    Args:
        registry: where.
        registration: of the version that was judged.
        decision: of the gate; see `pipelines.registry.promote.settle`.
        note: hears in one line why nothing was promoted although it was decided.

    Returns:
        Whether the version is champion now.

    Raises:
        RunError: no space left on the device.
    """
    with registry_lock(registry):
        try:
            with connected(registry) as client:
                promoted = settle(registry, client, registration, decision)
        except RunError as error:
            queue_decision(registry, registration, decision)
            note(f"{error}; the gate's decision waits in {registry.folder / 'outbox'} and is carried out by the next run")
            return False
    if decision["promote"] and not promoted:
        name = registration.candidate.name
        note(f"`{name}` got another champion while this model was judged; the next run like this one is judged against that")
    return promoted


def deliver_waiting(registry: Registry, *, note: Callable[[str], None]) -> int:
    """Tells the registry all that waits for it; returns how many entries were delivered. `note` hears what was not, and why.

    Raises:
        RegistryUnreachableError: it does not answer.
    """
    with registry_lock(registry), connected(registry) as client:
        return deliver(registry, client, note=note)
