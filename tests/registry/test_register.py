"""Runs become versions: what MLflow is told, and that it is told once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.errors import RunError
from pipelines.registry.connection import connected
from pipelines.registry.fetch import fetch, parse_reference
from pipelines.registry.versions import list_versions
from tests.registry.conftest import CutOffError, Desk, copy_of, dying_before
from tests.registry.folders import candidate

ALONE = """
import socket, sys
from pathlib import Path

def refuse(*arguments):
    print("the network was asked for", arguments)
    raise OSError("no network")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
from pipelines.registry.connection import Registry
from tests.registry.conftest import Desk

Desk(Registry(Path(sys.argv[1])), []).train(1)
"""


def test_a_home_s_own_registry_asks_no_network_and_says_nothing(desk: Desk) -> None:
    # Test runners and CI switch MLflow's telemetry off; here it must be off because we said so.
    shown = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MLFLOW", "CI", "DO_NOT"))}
    command = [sys.executable, "-W", "error", "-c", ALONE, str(desk.registry.home)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=shown)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert desk.champion == 1


def test_a_run_is_logged_whole(desk: Desk) -> None:
    registration = desk.register(1)
    assert (registration.version, registration.champion, registration.settled) == (1, None, False)
    with connected(desk.registry) as client:
        version = client.get_model_version_by_alias("pets", "challenger")
        run = client.get_run(version.run_id)
        losses = [(point.step, point.value) for point in client.get_metric_history(version.run_id, "loss")]
        inputs = [given.dataset.digest for given in run.inputs.dataset_inputs]
        artifacts = {file.path for file in client.list_artifacts(version.run_id)}
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25), (5, 0.2)]  # over both phases
    assert run.data.metrics["test_accuracy"] == 0.75
    assert run.data.params["head.epochs"] == "10"
    assert run.data.params["code.imagemill"] == "0.1.0"
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert run.info.status == "FINISHED"
    assert inputs == ["d" * 36]
    assert artifacts == {"config.yaml", "model", "pictures"}


def test_the_same_content_is_one_version(desk: Desk) -> None:
    assert [desk.register(seed).version for seed in (1, 1, 2, 1)] == [1, 1, 2, 1]
    shutil.rmtree(desk.registry.folder / "records")  # what the home remembers only saves time
    assert desk.register(2).version == 2
    assert desk.versions == [2, 1]


def test_two_runs_at_once_are_one_version(desk: Desk) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert {registration.version for registration in pool.map(desk.register, [1, 1])} == {1}
    assert desk.versions == [1]


def test_a_judged_run_is_not_judged_again_but_by_another_gate(desk: Desk) -> None:
    desk.settle(desk.register(1), promote=False)
    desk.train(2, 3)
    for _ in range(2):
        assert [desk.register(seed).settled for seed in (1, 2, 3)] == [True] * 3
        shutil.rmtree(desk.registry.folder / "records")  # the registry itself knows
    assert not desk.register(1, gate="margin .02").settled


def test_a_repeated_run_asks_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.train(1)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipelines.registry.service.connected", fail)
    monkeypatch.setattr("tests.registry.conftest.write_run", fail)
    assert desk.register(1).settled


def test_a_registry_that_was_deleted_is_filled_anew(trained: Desk, tmp_path: Path) -> None:
    shutil.rmtree(trained.registry.home / "mlflow")
    # Elsewhere, since this process keeps the deleted database open.
    emptied = copy_of(trained.registry.home, tmp_path / "emptied")
    registration = emptied.register(3)
    assert (registration.version, registration.settled) == (1, False)


@pytest.mark.slow
def test_whatever_step_is_cut_off_the_run_is_registered_once(made_home: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    for step in range(30):
        desk = copy_of(made_home, tmp_path / str(step))
        try:
            with dying_before(step) as made:
                desk.register(1)
            break
        except CutOffError as cut:
            steps.append(str(cut))
        assert desk.register(1).version == 1
        with connected(desk.registry) as client:
            (version,) = list_versions(client, "pets")
            assert version.aliases == ("challenger",)
            (run,) = client.search_runs([client.get_experiment_by_name("pets").experiment_id])
            assert len(client.get_metric_history(run.info.run_id, "loss")) == 5
        fetch(desk.registry, parse_reference("models:/pets@challenger"))
    assert steps[0] == "create_experiment"
    assert steps[-2:] == ["create_model_version", "set_registered_model_alias"]
    assert made[-1] == steps[-1]


def test_a_moved_home_finds_its_models_and_writes_new_ones_where_it_is(trained: Desk, trained_home: Path) -> None:
    folder = fetch(trained.registry, parse_reference("models:/pets/1"))
    assert folder.is_relative_to(trained.registry.home)
    trained.train(4)
    with connected(trained.registry) as client:
        source = client.get_model_version("pets", "4").source
    assert source.startswith(trained.registry.home.as_uri())
    assert len(list((trained_home / "mlflow" / "artifacts" / "pets").iterdir())) == 3


def test_a_home_that_no_address_can_name_is_said_so(tmp_path: Path, desk: Desk) -> None:
    strange = tmp_path / "why?"
    desk.registry.home.rename(strange)
    from pipelines.registry.connection import Registry

    with pytest.raises(RunError, match="question mark"), connected(Registry(strange)):
        pass


def test_a_run_of_another_name_is_another_model(desk: Desk) -> None:
    from pipelines.registry.service import register_run
    from tests.registry.folders import write_run

    desk.register(1)
    for name in ("it's", 'a "b"', "ä (1)"):
        again = [
            register_run(
                desk.registry,
                candidate(1, name=name),
                lambda folder: write_run(folder, seed=1),
                note=desk.notes.append,
            )
            for _ in range(2)
        ]
        assert [registration.version for registration in again] == [1, 1]
        shutil.rmtree(desk.registry.folder / "records")
    assert desk.notes == []
