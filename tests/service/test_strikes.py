"""kill -9 at every stage of a retraining in service: of the flow, of the training's process and of the worker.

A process is killed at the worst moment of a stage, when all is made and nothing has its name yet (`striking/`). Which is the
real thing: real processes, a real server, and signals that no handler sees.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.contracts import Artifact
from pipelines.inference import load_finished
from pipelines.store.artifacts import MANIFEST, is_intact
from tasks.devices import find_devices, taken_devices
from tests.service.processes import Server, Worker, poll
from tests.service.test_deployments import deploy
from tests.sources.folders import write_classes, write_photo

pytestmark = pytest.mark.slow
NAME = "strikes"
RECIPE: dict[str, Any] = {
    "name": NAME,
    "image_size": 32,
    "batch_size": 8,
    "model": {"backbone": "SmallCNN", "hidden_units": 0, "blocks": {"widths": [4], "depths": [1]}},
    "fine_tune": {"epochs": 1},
    "gate": {"least_images": 1},
}
# What has the two stages that a network from scratch has not: pretrained ones are as large with random weights.
TRANSFER: dict[str, Any] = {
    **RECIPE,
    "name": "warmed",
    "model": {"weights": "none"},
    "head": {"epochs": 1},
    "retrain": {"warm_start": True, "epochs": 1},
}
# Part of the name that is given last in each stage, in their order.
IN_CHILD = {stage: f"/artifacts/{stage}/" for stage in ("prepare", "embed", "fine_tune", "evaluate", "export")}
STAGES = {
    "scan": "/artifacts/scan/",
    "ingest": "/artifacts/ingest/",
    **IN_CHILD,
    "register": "/model/MLmodel",
    "gate": "/gate.json",
    "promote": "/artifacts/gate.json",
    "retrain": "/retrained/",
}
FLOW_DIES_AT = tuple(STAGES)  # each costs 11 s of processor time


class Struck:
    """A deployed retraining whose processes can be told when to die."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.home, self.source = folder / "home", write_classes(folder / NAME, {"cat": 20, "dog": 20})
        self._server, self._folder, self._orders = server, folder, folder / "orders"
        deployment = {
            "name": NAME,
            "entrypoint": "flows.retrain.retrain",
            "pull": [],
            "parameters": {"source": str(self.source), "home": str(self.home), "recipe": RECIPE},
            "work_pool": {"name": NAME, "job_variables": {"stream_output": False}},
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        }
        server.run("work-pool", "create", NAME, "--type", "process")
        (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [deployment]}))
        deploy(server, folder / "prefect.yaml")
        self.worker = self.start_worker()

    def start_worker(self) -> Worker:
        """A new worker, whose runs read the orders."""
        path = os.pathsep.join([str(Path(__file__).with_name("striking")), self._server.environment["PYTHONPATH"]])
        more = {"STRIKES": str(self._orders), "PREFECT_LOGGING_LEVEL": "INFO"}  # as a service does, which writes to its worker
        self.worker = Worker(self._server, NAME, self._folder, PYTHONPATH=path, **more)
        return self.worker

    def start(self, *orders: str, recipe: dict[str, Any] = RECIPE) -> UUID:
        """Has the deployment run, with these strikes; returns the run's id."""
        from prefect.client.orchestration import get_client

        self._orders.write_text("".join(f"{order}\n" for order in orders))
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(f"retrain/{NAME}")
            return client.create_flow_run_from_deployment(deployment.id, parameters={"recipe": recipe}).id

    def left(self) -> list[str]:
        """The strikes that did not happen yet."""
        return self._orders.read_text().splitlines()

    def await_end(self, run: UUID) -> str:
        """The name of a run's final state, once all of its processes have gone and let go of the device."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            state = poll("a run to end", lambda: _final(client.read_flow_run(run).state), seconds=240)
        poll("its processes to end", lambda: not processes_of(run))
        assert not taken_devices(find_devices())
        return str(state.name)

    def check_artifacts(self) -> set[str]:
        """Makes sure that every artifact is whole; returns the stages that have one."""
        manifests = list((self.home / "artifacts").glob(f"*/*/{MANIFEST}"))
        assert len(manifests) == len(list((self.home / "artifacts").glob("*/*")))
        for manifest in manifests:
            path = manifest.parent.relative_to(self.home).as_posix()
            assert is_intact(self.home, Artifact(path=path, digest=json.loads(manifest.read_text())["digest"])), path
        return {manifest.parent.parent.name for manifest in manifests}

    def outcomes(self) -> list[dict[str, Any]]:
        """What the retrainings that ended came to, oldest first."""
        records = sorted((self.home / "retrained").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in records]


def _final(state: Any) -> Any:
    return state if state is not None and state.is_final() else None


def processes_of(run: UUID) -> list[int]:
    """The processes of a flow run, whoever their parent is by now: what a run starts inherits its environment."""
    mark, found = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes():  # empty for one that waits to be buried
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.fixture(scope="module")
def struck(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Struck]:
    started = Struck(server, tmp_path_factory.mktemp(NAME))
    yield started
    started.worker.stop()


@pytest.fixture
def slots(configured: Server) -> Iterator[Callable[[], int]]:
    """How many slots of this host are taken on the server, which has so many that nobody waits for a killed one's lease."""
    from prefect.client.orchestration import get_client

    name = find_devices().limit
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, len(STAGES) + 1)
        yield lambda: int(client.read_global_concurrency_limit_by_name(name).active_slots)
        client.delete_global_concurrency_limit_by_name(name)


@pytest.mark.timeout(1200)
def test_a_flow_killed_at_any_stage_leaves_nothing_broken_and_the_next_run_goes_on(
    struck: Struck, configured: Server, slots: Callable[[], int]
) -> None:
    for stage in FLOW_DIES_AT:
        run = struck.start(f"flow {STAGES[stage]}")
        assert struck.await_end(run) == "Crashed", stage
        assert not struck.left(), stage
        assert not struck.outcomes(), stage
        made = struck.check_artifacts()
        done = [earlier for earlier in STAGES if STAGES[earlier].startswith("/artifacts/") and earlier != "promote"]
        assert made >= set(done[: done.index(stage)] if stage in done else done), stage
    assert struck.await_end(struck.start()) == "Completed"
    (outcome,) = struck.outcomes()
    # The registry had the last word before the outcome was written down: it knows that the model is champion.
    assert (outcome["version"], outcome["promoted"]) == (1, None)
    struck.check_artifacts()
    assert load_finished(Path(outcome["challenger"])).classes == ("cat", "dog")
    assert not list((struck.home / "tmp").iterdir())
    poll("the slots of the killed", lambda: slots() == 0)


@pytest.mark.timeout(1200)
def test_a_run_outlives_its_worker_and_the_death_of_its_child_at_any_stage(
    struck: Struck, configured: Server, slots: Callable[[], int]
) -> None:
    for number in range(4):
        write_photo(struck.source / ("cat", "dog")[number % 2] / f"new {number}.jpg", seed=200 + number)
    strikes = [f"self {part}" for part in (*IN_CHILD.values(), "/gate.json")]
    dead = struck.worker
    run = struck.start(f"worker {STAGES['ingest']}", *strikes)
    poll("the worker's end", lambda: dead.process.poll() is not None)
    struck.start_worker()
    assert struck.await_end(run) == "Completed"
    assert not struck.left()
    assert struck.outcomes()[-1]["version"] == len(struck.outcomes())
    assert slots() == 0
    struck.check_artifacts()
    assert load_finished(Path(struck.outcomes()[-1]["challenger"])).classes == ("cat", "dog")


@pytest.mark.timeout(1200)
def test_a_head_and_a_warm_start_are_killed_in_flow_and_child(struck: Struck, configured: Server) -> None:
    for number, part in enumerate(("/artifacts/head/", "/artifacts/warm_start/"), start=1):
        assert struck.await_end(struck.start(f"flow {part}", recipe=TRANSFER)) == "Crashed", part
        assert struck.await_end(struck.start(f"self {part}", recipe=TRANSFER)) == "Completed", part
        assert not struck.left(), part
        struck.check_artifacts()
        outcome = struck.outcomes()[-1]
        assert (outcome["dataset"], outcome["version"]) == ("warmed", number)
        phases = set(pq.read_table(Path(outcome["challenger"]) / "history.parquet")["phase"].to_pylist())
        assert phases == (
            {"head", "fine_tune"} if number == 1 else {"fine_tune"}
        )  # the second began with the first one's weights
        write_photo(struck.source / "cat" / "later.jpg", seed=301)
