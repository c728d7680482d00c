"""`imagemill status`: what runs, what waits, what ended last: on the configured server, and in the home."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from rich.console import Console

from flows.console import printable, say
from flows.models import describe_champions
from flows.request import find_registry
from flows.service import configured_url, connect
from flows.setup import read_deployments
from tasks.devices import find_devices, taken_devices

_ACTIVE = [StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
_MOST = 100  # runs of a kind that are asked for
_LAST = 5  # ended runs that are shown


def show_status(home: Path, *, console: Console) -> None:
    """Prints what the server knows, where one is configured, then what the home and this host tell.

    Raises:
        RunError: the configured server does not answer.
    """
    if configured_url():
        with connect() as client:
            for line in describe_server(client, now=datetime.now(UTC)):
                say(console, line)
    else:
        say(console, "server: none configured; runs use a temporary one each")
    for line in describe_home(home):
        say(console, line)


def describe_server(client: SyncPrefectClient, *, now: datetime) -> Iterator[str]:
    """What a server says of its runs, slots and workers."""
    yield f"server: {configured_url()}"
    flows = {flow.id: flow.name for flow in client.read_flows()}
    names: dict[UUID | None, str] = {
        deployment.id: printable(f"{flows.get(deployment.flow_id, '?')}/{deployment.name}")
        for deployment in read_deployments(client)
    }

    def describe(run: FlowRun) -> str:
        deployment = f", deployment {names[run.deployment_id]}" if run.deployment_id in names else ""
        return f"  {printable(run.name)}: {_state(run, now)}{deployment}"

    yield from _listed("running", map(describe, _read_runs(client, _ACTIVE)))
    due: list[str] = []
    later: dict[UUID | None, str] = {}  # by deployment, the first of each
    for run in _read_runs(client, [StateType.PENDING, StateType.SCHEDULED]):
        starts = run.next_scheduled_start_time
        if run.state_type is StateType.SCHEDULED and starts is not None and starts > now and run.state_name == "Scheduled":
            name = names.get(run.deployment_id, printable(run.name))
            later.setdefault(run.deployment_id, f"  {name}: {_time(starts)}")
        else:
            due.append(describe(run))
    yield from _listed("waiting", due)
    yield from _listed("scheduled next", later.values())
    ended = _read_runs(client, _ENDED, sort=FlowRunSort.END_TIME_DESC, limit=_LAST)
    yield from _listed("ended last", map(describe, ended))
    limits = client.read_global_concurrency_limits(limit=_MOST)
    slots = [limit for limit in limits if limit.name.startswith(("gpu-", "cpu-"))]
    yield from _listed("slots", (f"  {slot.name}: {slot.active_slots} of {slot.limit} taken" for slot in slots))
    yield from _listed("workers", _describe_workers(client))


def describe_home(home: Path) -> Iterator[str]:
    """What a home and this host tell: training under way or interrupted, failed runs, devices that are taken."""
    yield f"home: {home.absolute()}{'' if home.is_dir() else ', which is not there yet'}"
    under_way = sorted((home / "checkpoints").glob("*"), key=_modified)
    saved = (f"  {folder.name.rpartition('-')[0]}: last saved {_modified(folder)}" for folder in under_way)
    yield from _listed("training under way, or interrupted", saved)
    if home.is_dir():
        yield from _listed("champions", describe_champions(find_registry(None, home=home)))
    logs = sorted((home / "logs").glob("*.log"))[-_LAST:]
    yield from _listed("failed last", (f"  {_modified(log)}: {log}" for log in reversed(logs)))
    devices = find_devices()
    yield f"devices of this host: {len(taken_devices(devices))} of {len(devices.names)} {devices.kind} taken"


def _read_runs(
    client: SyncPrefectClient,
    types: list[StateType],
    *,
    sort: FlowRunSort = FlowRunSort.EXPECTED_START_TIME_ASC,
    limit: int = _MOST,
) -> list[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
    return client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=limit)


def _describe_workers(client: SyncPrefectClient) -> Iterator[str]:
    for pool in client.read_work_pools():
        online = [worker.name for worker in client.read_workers_for_work_pool(pool.name) if worker.status.value == "ONLINE"]
        yield f"  pool {pool.name}: {', '.join(online) if online else f'none; prefect worker start --pool {pool.name}'}"


def _state(run: FlowRun, now: datetime) -> str:
    """The state of a run, since when or for how long, and what its last message says if it went wrong."""
    name = run.state_name or "unknown"
    if run.end_time is not None:
        took = "" if run.start_time is None else f", took {(run.end_time - run.start_time).total_seconds():,.0f} s"
        wrong = run.state_type in (StateType.FAILED, StateType.CRASHED) and run.state is not None and run.state.message
        return f"{name} {_time(run.end_time)}{took}{f' ({printable(str(wrong))})' if wrong else ''}"
    since = run.start_time or run.expected_start_time
    return name if since is None else f"{name} for {max((now - since).total_seconds(), 0):,.0f} s"


def _listed(heading: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    yield f"{heading}:{'' if found else ' none'}"
    yield from found


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _modified(path: Path) -> str:
    return _time(datetime.fromtimestamp(path.stat().st_mtime, UTC))
