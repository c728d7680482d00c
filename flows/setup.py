"""`imagemill setup`: what a Prefect server needs for imagemill, made once and found again the next time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from rich.console import Console

from flows.console import say
from flows.service import configured_url, connect
from pipelines.errors import InputError
from tasks.devices import find_devices

POOL = "imagemill"
FLOWS = ("train", "retrain", "watch", "predict")
SILENT_RUNS = "imagemill: runs that fell silent are crashed"
# Two heartbeats may be lost, to a server that restarts say: Prefect's default is one every 180 s.
SILENT_FOR = timedelta(minutes=7)
_DECIDING = ("prefect", "fastapi", "sqlalchemy")  # whose versions decide whether a server works (pyproject.toml says how)
_LEASE_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")
_UNRESOLVED = re.compile(r"\{\{\s*\$\w+\s*\}\}")
_PAGE = 200


def set_up(*, pool: str, console: Console) -> None:
    """Checks the configured server and makes what it lacks; says what it found and made, line by line.

    Raises:
        InputError: no server is configured, versions do not go together, or a deployment on the server can't run as it is;
            nothing was made then.
        RunError: the server does not answer, or wants other credentials.
    """
    with connect() as client:
        say(console, f"server: {configured_url()}")
        for check in (check_versions, check_lease_storage, check_deployments):
            for line in check(client):
                say(console, line)
        say(console, make_slots(client))
        say(console, make_pool(client, pool))
        say(console, make_automation(client, silent_automation()))


def check_versions(client: SyncPrefectClient) -> Iterator[str]:
    """Compares what is installed here with what imagemill was tested with, and with the server as far as it tells.

    Raises:
        InputError: they do not go together.
    """
    wanted = {asked.name.lower(): asked for asked in map(Requirement, requires("imagemill") or ())}
    here = {name: version(name) for name in _DECIDING}
    for name, found in here.items():
        if not wanted[name].specifier.contains(found, prereleases=True):
            raise InputError(f"imagemill works with {wanted[name]}; {found} is installed: `pip install '{wanted[name]}'`")
    yield f"versions here: {', '.join(f'{name} {found}' for name, found in here.items())}"
    there = client.api_version()
    if Version(there).release[:2] != Version(here["prefect"]).release[:2]:
        raise InputError(f"the server runs Prefect {there}, and this is {here['prefect']}: the minor version must be the same")
    yield f"versions there: prefect {there}; a server does not tell those of fastapi and sqlalchemy"


def check_lease_storage(client: SyncPrefectClient) -> Iterator[str]:
    """Warns of a server that would forget who holds a slot when it restarts."""
    storage = client.request("GET", "/admin/settings").json()["server"]["concurrency"]["lease_storage"]
    if storage == "prefect.server.concurrency.lease_storage.memory":
        yield (
            "warning: the server keeps leases in memory, so that slots stay taken when it restarts; start it with"
            f" PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={_LEASE_STORAGE}"
        )
    else:
        yield f"leases: kept by {storage}"


def check_deployments(client: SyncPrefectClient) -> Iterator[str]:
    """Looks through the server's deployments, and what triggers them, for variables that were not set when they were made.

    Raises:
        InputError: naming the first one, what it lacks and how to mend it.
    """
    found = read_deployments(client)
    for deployment in found:
        holds = json.dumps([deployment.parameters, deployment.job_variables, deployment.pull_steps], default=str)
        unresolved = _UNRESOLVED.findall(holds)
        if (deployment.entrypoint or "").startswith("flows."):  # of Prefect's own making: what was not set became empty
            values = {**deployment.parameters, **deployment.job_variables}
            unresolved += [f"an empty `{name}`" for name, value in values.items() if value == ""]
        if unresolved:
            raise InputError(_unresolved(f"deployment {deployment.name!r} ({deployment.entrypoint})", unresolved[0]))
    for automation in client.read_automations():
        if unresolved := _UNRESOLVED.findall(automation.model_dump_json()):
            raise InputError(_unresolved(f"automation {automation.name!r}", unresolved[0]))
    yield f"deployments: {len(found)} found, none with unresolved variables"


def make_slots(client: SyncPrefectClient) -> str:
    """Makes the limit of this host's devices, or sets it to how many there are now."""
    devices = find_devices()
    name, count = devices.limit, len(devices.names)
    try:
        limit = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=count))
        return f"slots: made {name}, {count} at a time"
    if limit.limit != count or not limit.active:
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=count, active=True))
        return f"slots: changed {name} from {limit.limit} to {count} at a time"
    return f"slots: found {name}, {count} at a time"


def make_pool(client: SyncPrefectClient, name: str) -> str:
    """Makes a process work pool, unless there is a work pool of that name."""
    try:
        return f"work pool: found {name}, of type {client.read_work_pool(name).type}"
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        return f"work pool: made {name}, of type process"


def make_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Makes an automation, unless there is one of its name, which may have been adapted since."""
    if client.read_automations_by_name(wanted.name):
        return f"automation: found '{wanted.name}'"
    client.create_automation(wanted)
    return f"automation: made '{wanted.name}'"


def silent_automation(silent_for: timedelta = SILENT_FOR) -> AutomationCore:
    """Marks a run of imagemill's flows as crashed when its heartbeats have stopped: its host went away.

    Source: "How to detect and respond to zombie flows" in Prefect's documentation, narrowed to these flows.
    """
    heartbeat, run = "prefect.flow-run.heartbeat", "prefect.resource.id"
    return AutomationCore(
        name=SILENT_RUNS,
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match={run: "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)},
            for_each={run},
            posture=Posture.Proactive,
            threshold=1,
            within=silent_for,
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {silent_for}: its process or host is gone")
        ],
    )


def read_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """All deployments of a server."""
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(limit=_PAGE, offset=len(found)):
        found += page
    return found


def _unresolved(where: str, what: str) -> str:
    return (
        f"the {where} on the server holds {what}, since a variable was not set when it was made: set it, then"
        " `prefect deploy --all --prefect-file deployments/prefect.yaml` again, or delete it"
    )
