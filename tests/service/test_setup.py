"""`imagemill setup` on a real server: made once, found again, and nothing made where something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tests.command import run_command
from tests.service.processes import AUTH, Server, poll
from tests.tasks.test_devices import put_driver

pytestmark = pytest.mark.slow


@contextmanager
def deployed(name: str, *, entrypoint: str = "flows.train.train_model", **options: Any) -> Iterator[None]:
    """A deployment on the configured server meanwhile."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("train")
        deployment = client.create_deployment(flow, name, entrypoint=entrypoint, **options)
        try:
            yield
        finally:
            client.delete_deployment(deployment)


@pytest.fixture(scope="module", autouse=True)
def silent_runs(server: Server) -> Iterator[dict[str, UUID]]:
    """Two runs that say that they live and then no more, before the other tests: one of a flow of ours, one of others."""
    from prefect.client.orchestration import get_client
    from prefect.events.clients import get_events_client
    from prefect.events.schemas.events import Event
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    from flows.setup import silent_automation

    async def beat(event: Event) -> None:
        async with get_events_client() as client:
            await client.emit(event)

    runs: dict[str, UUID] = {}
    settings = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: AUTH}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        quick = silent_automation(timedelta(seconds=10))
        automation = client.create_automation(quick.model_copy(update={"name": "quick"}))
        for name in ("retrain", "theirs"):
            flow = client.create_flow_from_name(name)
            response = client.request("POST", "/flow_runs/", json={"flow_id": str(flow), "state": None})
            runs[name] = UUID(response.json()["id"])
            client.set_flow_run_state(runs[name], Running(), force=True)
            of_flow = {"prefect.resource.id": f"prefect.flow.{flow}", "prefect.resource.role": "flow"}
            event = Event(
                event="prefect.flow-run.heartbeat",
                resource={"prefect.resource.id": f"prefect.flow-run.{runs[name]}"},  # type: ignore[arg-type]
                related=[{**of_flow, "prefect.resource.name": name}],  # type: ignore[list-item]
            )
            asyncio.run(beat(event))
    yield runs
    with temporary_settings(settings), get_client(sync_client=True) as client:
        client.delete_automation(automation)  # it would end the runs of other tests, which beat more slowly


def test_what_is_missing_is_made_and_found_the_next_time(
    configured: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.setattr("socket.gethostname", lambda: "first")
    limit = "cpu-first"
    assert run_command("setup", "--pool", "own") == 0
    made = capfd.readouterr().out.splitlines()
    assert f"server: {configured.url}" in made
    assert "leases: kept by prefect.server.concurrency.lease_storage.filesystem" in made
    assert "work pool: made own, of type process" in made
    assert f"slots: made {limit}, 1 at a time" in made
    assert run_command("setup", "--pool", "own") == 0
    found = capfd.readouterr().out.splitlines()
    assert [line.replace(": made ", ": found ") for line in made] == found
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("own").type == "process"
        limits = [found.limit for found in client.read_global_concurrency_limits() if found.name == limit]
        automations = [found.name for found in client.read_automations()]
    assert limits == [1]
    assert automations.count("imagemill: runs that fell silent are crashed") == 1


def test_slots_follow_the_number_of_gpus(
    configured: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "grown")
    put_driver(tmp_path / "two", monkeypatch, "echo GPU-a; echo GPU-b")
    assert run_command("setup") == 0
    put_driver(tmp_path / "one", monkeypatch, "echo GPU-a")
    assert run_command("setup") == 0
    shown = capfd.readouterr().out
    assert "slots: made gpu-grown, 2 at a time" in shown
    assert "slots: changed gpu-grown from 2 to 1 at a time" in shown


@pytest.mark.parametrize(
    ("options", "lack"),
    [
        ({"parameters": {"source": "/srv/photos", "home": "{{ $IMAGEMILL_HOME }}"}}, r"{{ \$IMAGEMILL_HOME }}"),
        ({"parameters": {"source": ""}}, "an empty `source`"),
        ({"job_variables": {"working_dir": ""}, "work_pool_name": "later"}, "an empty `working_dir`"),
    ],
)
def test_a_deployment_whose_variables_were_not_set_is_refused(
    configured: Server, capfd: pytest.CaptureFixture[str], options: dict[str, Any], lack: str
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    if "work_pool_name" in options:
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=options["work_pool_name"], type="process"))
    with deployed("forgotten", **options):
        assert run_command("setup", "--pool", "never") == 2
        shown = capfd.readouterr()
        assert len(shown.err.splitlines()) == 1
        assert "the deployment 'forgotten' (flows.train.train_model) on the server holds " + lack.replace("\\", "") in shown.err
    with get_client(sync_client=True) as client:
        assert "never" not in [pool.name for pool in client.read_work_pools()]


def test_what_was_left_empty_in_a_flow_of_others_is_their_own_affair(configured: Server) -> None:
    with deployed("theirs", entrypoint="theirs.flow", parameters={"note": ""}):
        assert run_command("setup") == 0


def test_without_a_server_it_says_how_to_name_one(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert run_command("setup") == 2
    shown = capfd.readouterr()
    assert shown.err.startswith("imagemill: no Prefect server is configured: set `PREFECT_API_URL`")
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


def test_wrong_credentials_are_named(configured: Server, capfd: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    with temporary_settings({PREFECT_API_AUTH_STRING: "somebody:else"}):
        assert run_command("setup") == 1
    assert "refuses these credentials; set `PREFECT_API_AUTH_STRING`" in capfd.readouterr().err


def test_versions_that_were_seen_not_to_work_are_refused(
    configured: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from flows import setup

    real = setup.version
    monkeypatch.setattr(setup, "version", lambda name: "2.1.0" if name == "sqlalchemy" else real(name))
    assert run_command("setup") == 2
    assert "imagemill works with sqlalchemy<2.1,>=2.0; 2.1.0 is installed" in capfd.readouterr().err
    monkeypatch.setattr(setup, "version", real)
    other = SimpleNamespace(api_version=lambda: "3.7.1")
    with pytest.raises(setup.InputError, match=r"the server runs Prefect 3.7.1, and this is 3\.8\.\d+: the minor version"):
        list(setup.check_versions(other))


def test_a_server_that_forgets_its_slots_is_warned_of() -> None:
    from flows.setup import check_lease_storage

    kept = {"server": {"concurrency": {"lease_storage": "prefect.server.concurrency.lease_storage.memory"}}}
    forgetful = SimpleNamespace(request=lambda *_: SimpleNamespace(json=lambda: kept))
    assert [line.startswith("warning: ") for line in check_lease_storage(forgetful)] == [True]  # type: ignore[arg-type]


def test_a_run_of_ours_that_fell_silent_is_marked_as_crashed(configured: Server, silent_runs: dict[str, UUID]) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        poll("the crash", lambda: client.read_flow_run(silent_runs["retrain"]).state_name == "Crashed")
        state = client.read_flow_run(silent_runs["retrain"]).state
        assert state is not None
        assert state.message == "no heartbeat for 0:00:10: its process or host is gone"
        assert client.read_flow_run(silent_runs["theirs"]).state_name == "Running"
