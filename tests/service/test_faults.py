"""Retraining as a service, with everything that can die killed in the middle: worker, flow, training, server.

One story on a real server with a real worker, since each run takes many seconds: each test goes on where the one before ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from tests.command import run_command
from tests.processes import descendants, is_running
from tests.service.processes import AUTH, Server, Worker, poll
from tests.service.test_deployments import deploy
from tests.sources.folders import write_classes, write_photo

pytestmark = pytest.mark.slow
RECIPE: dict[str, Any] = {
    "name": "faults",
    "image_size": 32,
    "batch_size": 8,
    "checkpoint_every_steps": 5,
    "model": {"backbone": "SmallCNN", "hidden_units": 0, "blocks": {"widths": [4], "depths": [1]}},
    "fine_tune": {"epochs": 150, "patience": 150},
    "gate": {"least_images": 1},
}


class Story:
    """A deployed retraining."""

    def __init__(self, folder: Path, server: Server, worker: Worker) -> None:
        self.home, self.source = folder / "home", write_classes(folder / "faults", {"cat": 14, "dog": 14})
        self._worker = worker
        trigger = {
            "match": {"prefect.resource.id": "dataset.faults"},
            "expect": ["dataset.changed"],
            "parameters": {"source": "{{ event.payload.source }}", "digest": "{{ event.payload.digest }}"},
        }
        deployment = {
            "name": "faults",
            "entrypoint": "flows.retrain.retrain",
            "pull": [],
            "parameters": {"source": str(self.source), "home": str(self.home), "recipe": RECIPE},
            "work_pool": {"name": "imagemill"},
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "triggers": [trigger],
        }
        (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [deployment]}))
        deploy(server, folder / "prefect.yaml")

    def start(self) -> UUID:
        """Has the deployment run; returns the run's id."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("retrain/faults")
            return client.create_flow_run_from_deployment(deployment.id).id

    def runs(self) -> list[Any]:
        """All runs of the deployment."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

        with get_client(sync_client=True) as client:
            named = DeploymentFilter(name=DeploymentFilterName(any_=["faults"]))
            return client.read_flow_runs(deployment_filter=named)

    def await_end(self, run: UUID) -> Any:
        """The final state of a run, by its name."""

        def ended() -> Any:
            (found,) = [each for each in self.runs() if each.id == run]
            return found.state if found.state and found.state.is_final() else None

        return poll("a run to end", ended, seconds=240).name

    def await_training(self) -> int:
        """Waits until the training has saved itself; returns the process that it is in."""
        poll("a checkpoint", lambda: any(self.home.glob("checkpoints/fine_tune-*/*.npz")), seconds=240, pause=0.05)
        return self.find_process("tasks.child")

    def saved_steps(self) -> set[int]:
        """The steps of which there are checkpoints."""
        return {int(path.name.partition("-")[0]) for path in self.home.glob("checkpoints/fine_tune-*/[0-9]*.npz")}

    def find_process(self, name: str) -> int:
        """The one process below the worker whose command line has this in it."""
        (pid,) = [pid for pid, command in descendants(self._worker.process.pid).items() if name in command]
        return pid

    def await_quiet(self) -> None:
        """Waits until nothing that the worker started is there any more, and the device is free."""
        from tasks.devices import find_devices, taken_devices

        poll("all processes to end", lambda: not descendants(self._worker.process.pid))
        poll("the device", lambda: not taken_devices(find_devices()))

    def outcome(self) -> dict[str, Any]:
        """What the last retraining that ended came to."""
        records = sorted((self.home / "retrained").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        content: dict[str, Any] = json.loads(records[-1].read_text())
        return content


@pytest.fixture(scope="module")
def story(server: Server, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: AUTH}):
        yield Story(tmp_path_factory.mktemp("faults"), server, worker)


def test_an_event_starts_a_retraining_that_outlives_its_child_and_a_restart_of_the_server(
    story: Story, configured: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    look = ("watch", story.source, "--name", "faults", "--settle", 0, "--home", story.home)
    for _ in range(2):
        assert run_command(*look) == 0
    assert "announced as dataset.changed" in capfd.readouterr().out
    os.kill(story.await_training(), signal.SIGKILL)
    configured.restart()
    (run,) = poll("the run", story.runs)
    assert story.await_end(run.id) == "Completed"
    assert "ended by SIGKILL" in story._worker.said()
    assert (story.outcome()["version"], story.outcome()["promoted"]) == (1, True)
    story.await_quiet()


def test_a_killed_flow_takes_its_child_with_it_and_the_next_run_goes_on(story: Story, configured: Server) -> None:
    write_photo(story.source / "cat" / "new.jpg", seed=101)
    run = story.start()
    child = story.await_training()
    flow = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(flow, signal.SIGKILL)
    assert story.await_end(run) == "Crashed"
    story.await_quiet()
    assert not is_running(child)
    assert any(story.home.glob("checkpoints/fine_tune-*/*.npz"))
    assert story.outcome()["version"] == 1


def test_a_cancelled_run_saves_itself_and_the_next_one_goes_on_from_there(story: Story, configured: Server) -> None:
    steps = story.saved_steps()
    run = story.start()
    poll("another checkpoint", lambda: story.saved_steps() - steps)
    configured.run("flow-run", "cancel", run)
    assert story.await_end(run) == "Cancelled"
    story.await_quiet()
    left = story.saved_steps()
    again = story.start()
    next_steps = poll("another checkpoint", lambda: story.saved_steps() - left, pause=0.02)
    assert min(next_steps) > max(left) > max(steps, default=0)
    assert story.await_end(again) == "Completed"
    assert story.outcome()["version"] == 2
    assert not any(story.home.glob("checkpoints/*"))
    story.await_quiet()


def test_the_same_content_is_not_trained_on_again_whoever_asks(story: Story, configured: Server) -> None:
    runs = [story.start(), story.start()]
    assert [story.await_end(run) for run in runs] == ["Completed", "Completed"]
    listed = subprocess.run(
        [Path(sys.executable).with_name("imagemill"), "models", "faults", "--home", story.home],
        env=configured.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "champion" in listed.stdout
    assert story.outcome()["version"] == 2
