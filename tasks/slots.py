"""Slots: one run at a time on a device, whoever started it.

With a server that `imagemill setup` was run for, a slot is first taken there, where everybody sees who has one and who waits;
then, and without a server at once, the device's lock on this host.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.context import ConcurrencyContext
from prefect.concurrency.sync import concurrency
from prefect.exceptions import MissingContextError, ObjectNotFound, PrefectException
from prefect.logging import get_run_logger

from pipelines.errors import RunError
from pipelines.progress import Progress, Report, ignore_progress
from tasks.devices import check_count, find_devices, hold_devices
from tasks.server import is_server_lasting

_LEASE_SECONDS = 60.0  # the shortest that Prefect takes: a killed holder's slot comes back after it


@contextmanager
def device_slot(count: int = 1, *, report: Report = ignore_progress) -> Iterator[dict[str, str]]:
    """Waits for devices of this host and keeps them for the block; to be entered inside a task, after its cache was asked.

    Must not be nested. What uses the devices must end with the block.

    Args:
        count: how many devices.
        report: hears that it waits, and for what.

    Yields:
        The environment variables for the process that is to use the devices; none on a host without GPUs.

    Raises:
        InputError: this host has not so many.
        RunError: the server has fewer slots for this host than that.
    """
    devices = find_devices()
    check_count(devices, count)
    what = "the processor" if devices.kind == "cpu" else "a GPU" if count == 1 else f"{count} GPUs"

    def wait_for(where: str) -> None:
        line = f"waits for {what} of this host: another run has {'it' if count == 1 else 'them'} ({where})"
        report(Progress(0, 1, "slots", line, milestone=True))

    with ExitStack() as stack:
        slots = _find_slots(devices.limit, count)
        if slots is not None:
            if slots.active_slots + count > slots.limit:
                wait_for(f"slot {devices.limit} on the server")
            stack.enter_context(_slots_on_server(devices.limit, count))
        held = stack.enter_context(hold_devices(devices, count, waiting=lambda: wait_for("lock on this host")))
        yield devices.environment(held)


def _find_slots(limit: str, count: int) -> GlobalConcurrencyLimitResponse | None:
    """What the server knows of this host's slots; a temporary server, and one without `imagemill setup`, knows of none.

    Raises:
        RunError: it has too few.
    """
    if not is_server_lasting():
        return None
    try:
        with get_client(sync_client=True) as client:
            slots = client.read_global_concurrency_limit_by_name(limit)
    except ObjectNotFound:
        _run_log().info("the server has no slots `%s`: only runs of this host take turns; `imagemill setup` makes them", limit)
        return None
    except HTTPError as error:
        _run_log().warning("the server does not answer (%s): only runs of this host take turns", error)
        return None
    if slots.active and slots.limit < count:
        raise RunError(f"the server has {slots.limit} slots `{limit}` for {count} devices; run `imagemill setup` on this host")
    return slots


@contextmanager
def _slots_on_server(limit: str, count: int) -> Iterator[None]:
    # No time limit: Prefect logs each one that is reached as an error.
    slots = concurrency(
        limit,
        occupy=count,
        lease_duration=_LEASE_SECONDS,
        strict=True,  # else a limit that is gone would only be warned of
        raise_on_lease_renewal_failure=False,  # a server that restarts would end hours of training; the lock is still held
    )
    slots.__enter__()
    if context := ConcurrencyContext.get():
        context.cleanup_lease_ids.clear()  # else Prefect gives the slots back with the task that took them
    try:
        yield
    finally:
        try:
            slots.__exit__(None, None, None)
        except (HTTPError, PrefectException) as error:
            _run_log().warning("slots of `%s` come back when their lease runs out: %s", limit, error)


def _run_log() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)
