"""Deployments on a real server with a real worker: the file as it is, a schedule that makes runs, an event that starts one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import run_command
from tests.service.processes import REPOSITORY, Server, Worker, poll

pytestmark = pytest.mark.slow
FILE = REPOSITORY / "deployments" / "prefect.yaml"
VARIABLES = {"DATASET": "photos", "SOURCE": "/srv/photos", "INBOX": "/srv/inbox", "HOME": "/srv/imagemill"}
NOTES = {
    "definitions": {"pull": []},
    "deployments": [
        {
            "name": "often",
            "entrypoint": "tests.service.notes.take_note",
            "pull": [],
            "parameters": {"folder": "{{ $NOTES }}", "text": "scheduled"},
            "work_pool": {"name": "imagemill"},
            "schedules": [{"interval": 10}],
        },
        {
            "name": "on-change",
            "entrypoint": "tests.service.notes.take_note",
            "pull": [],
            "parameters": {"folder": "{{ $NOTES }}"},
            "work_pool": {"name": "imagemill"},
            # The same trigger as that of retrain.
            "triggers": [
                {
                    "match": {"prefect.resource.id": "dataset.photos"},
                    "expect": ["dataset.changed"],
                    "parameters": {"text": "{{ event.payload.source }}"},
                }
            ],
        },
    ],
}


def deploy(server: Server, file: Path, **environment: str) -> None:
    """`prefect deploy --all`."""
    before = dict(server.environment)
    server.environment |= environment
    try:
        server.run("--no-prompt", "deploy", "--all", "--prefect-file", file)
    finally:
        server.environment.clear()
        server.environment.update(before)


def read_all() -> tuple[dict[str, Any], dict[str, Any]]:
    """Deployments by entrypoint, and automations by name."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployments = {found.entrypoint: found for found in client.read_deployments()}
        return deployments, {found.name: found for found in client.read_automations()}


@pytest.fixture(scope="module")
def deployed_notes(server: Server, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The notes, deployed; gives the folder that they are written to."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "taken").mkdir()
    (folder / "prefect.yaml").write_text(yaml.safe_dump(NOTES))
    deploy(server, folder / "prefect.yaml", NOTES=str(folder / "taken"))
    yield folder / "taken"
    server.run("--no-prompt", "deployment", "delete", "--all")


def test_a_schedule_makes_runs_and_an_event_starts_one_with_what_it_carries(
    deployed_notes: Path, configured: Server, worker: Worker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    payload = json.dumps({"source": "changed"})
    configured.run("events", "emit", "dataset.changed", "--resource-id", "dataset.other", "--payload", '{"source": "other"}')
    configured.run("events", "emit", "dataset.changed", "--resource-id", "dataset.photos", "--payload", payload)
    poll("both notes", lambda: {"scheduled", "changed"} <= {note.name for note in deployed_notes.iterdir()})
    assert "other" not in {note.name for note in deployed_notes.iterdir()}

    def shown() -> str:
        assert run_command("status", "--home", tmp_path / "home") == 0
        return capfd.readouterr().out

    said = poll("both runs to end", lambda: shown() if shown().count(": Completed ") >= 2 else None)
    assert ", deployment take-note/often" in said
    assert ", deployment take-note/on-change" in said
    assert "  take-note/often: 20" in said.split("scheduled next:")[1]
    assert "  pool imagemill: ProcessWorker" in said
    assert f"home: {tmp_path / 'home'}, which is not there yet" in said


def test_the_file_deploys_with_its_schedules_limits_and_triggers(configured: Server, worker: Worker) -> None:
    entries = yaml.safe_load(FILE.read_text())["deployments"]
    entrypoints = [entry["entrypoint"] for entry in entries]
    assert sorted(entrypoints) == [
        "flows.predict_flow.predict_flow",
        "flows.retrain.retrain",
        "flows.train.train_model",
        "flows.watch.watch",
    ]
    for module, _, function in (entrypoint.rpartition(".") for entrypoint in entrypoints):
        assert callable(getattr(import_module(module), function))
    deploy(configured, FILE, **{f"IMAGEMILL_{name}": value for name, value in VARIABLES.items()})
    deployments, automations = read_all()
    for entry in entries:
        found = deployments[entry["entrypoint"]]
        assert found.name == "photos"
        assert found.pull_steps == []
        assert found.parameters["home"] == "/srv/imagemill"
        assert found.job_variables == {"working_dir": "/srv/imagemill", "stream_output": False}
        assert found.global_concurrency_limit.limit == 1
        assert found.concurrency_options.collision_strategy.value == "ENQUEUE"
        assert len(found.schedules) == len(entry.get("schedules", []))
    assert deployments["flows.train.train_model"].parameters["source"] == "/srv/photos"
    assert deployments["flows.predict_flow.predict_flow"].parameters["model"] == "models:/photos@champion"
    trigger = automations["retrain photos when it changed"].trigger
    assert trigger.match.root == {"prefect.resource.id": "dataset.photos"}
    assert trigger.expect == {"dataset.changed"}
    assert run_command("setup") == 0


def test_a_kubernetes_pool_can_be_made_from_the_template(configured: Server) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((REPOSITORY / "deployments" / "kubernetes-job.json").read_text())
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="k8s", type="kubernetes", base_job_template=template))
        assert client.read_work_pool("k8s").base_job_template == template
