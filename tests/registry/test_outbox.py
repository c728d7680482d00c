"""A server that is away: nothing is lost, nothing is told twice. With a real one, stopped and started again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines.errors import RegistryUnreachableError
from pipelines.registry.connection import Registry, connected
from pipelines.registry.fetch import fetch, parse_reference
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.service import deliver_waiting
from tests.mlflow_server import MlflowServer
from tests.registry.conftest import CutOffError, Desk, dying_before

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def far(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The server's registry, seen from one home by all tests of this module, in their order."""
    return Desk(Registry(tmp_path_factory.mktemp("far") / "home", server.uri), [])


def waiting(desk: Desk) -> int:
    return len(waiting_entries(desk.registry))


def test_a_server_keeps_runs_and_models_and_its_page_has_their_curves(far: Desk, server: MlflowServer) -> None:
    far.train(1)
    folder = fetch(far.registry, parse_reference("models:/pets@champion"))
    assert (folder / "model.keras").read_text() == "model 1"
    with connected(far.registry) as client:
        run_id = client.get_model_version("pets", "1").run_id
    page = httpx.get(f"{server.uri}/")
    assert '<div id="root"' in page.text
    asked = {"run_id": run_id, "metric_key": "val_loss"}
    points = httpx.get(f"{server.uri}/ajax-api/2.0/mlflow/metrics/get-history", params=asked).json()["metrics"]
    assert [(point["step"], point["value"]) for point in points][:2] == [(1, 1.5), (2, 0.75)]
    assert len(points) == 5


def test_a_fetched_model_is_kept_and_one_that_was_altered_fetched_again(far: Desk) -> None:
    folder = fetch(far.registry, parse_reference("models:/pets/1"))
    kept = (folder / "model.keras").stat().st_ino
    assert fetch(far.registry, parse_reference("models:/pets/1")) == folder
    assert (folder / "model.keras").stat().st_ino == kept
    (folder / "model.keras").write_text("model 666")
    assert (fetch(far.registry, parse_reference("models:/pets/1")) / "model.keras").read_text() == "model 1"


def test_a_server_that_hangs_keeps_a_run_waiting(far: Desk, server: MlflowServer) -> None:
    with server.hanging():
        registration = far.register(2)
    assert (registration.version, registration.settled) == (None, False)
    assert "does not answer" in far.notes[-1]
    assert waiting(far) == 1


def test_a_server_that_dies_between_registering_and_promoting_keeps_the_decision_waiting(
    far: Desk, server: MlflowServer
) -> None:
    registration = far.register(3)
    assert (registration.version, registration.champion, waiting(far)) == (3, 1, 0)  # after the one that waited
    server.kill()
    assert not far.settle(registration)
    assert "the gate's decision waits" in far.notes[-1]
    assert far.register(4).version is None
    assert far.register(4).version is None
    assert far.register(5).version is None
    assert waiting(far) == 3  # the same run waits once
    with pytest.raises(RegistryUnreachableError, match=r"does not answer"):
        fetch(far.registry, parse_reference("models:/pets@champion"))


def test_what_waits_is_delivered_once_in_order_however_often_that_is_cut_off(far: Desk, server: MlflowServer) -> None:
    server.start()
    for change in (3, 8, 20):  # in the decision; in a run's log; after a version was made
        with pytest.raises(CutOffError), dying_before(change):
            deliver_waiting(far.registry, note=far.notes.append)
    deliver_waiting(far.registry, note=far.notes.append)
    assert waiting(far) == 0
    assert list((far.registry.folder / "outbox").iterdir()) == []
    assert far.versions == [5, 4, 3, 2, 1]
    assert far.history == [1, 3]
    assert far.register(3).settled
    with connected(far.registry) as client:
        experiment = client.get_experiment_by_name("pets").experiment_id
        assert sorted(run.data.params["seed"] for run in client.search_runs([experiment])) == ["1", "2", "3", "4", "5"]


def test_a_decision_that_waited_while_another_became_champion_decides_nothing(far: Desk, server: MlflowServer) -> None:
    late, meanwhile = far.register(6), far.register(7)
    with server.hanging():
        far.settle(late)
    assert waiting(far) == 1
    far.settle(meanwhile)
    deliver_waiting(far.registry, note=far.notes.append)
    assert "got another champion meanwhile" in far.notes[-1]
    assert (far.champion, waiting(far)) == (7, 0)
    again = far.register(6)
    assert (again.settled, again.champion) == (False, 7)


def test_what_can_not_be_delivered_does_not_block_the_rest(
    far: Desk, server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    with server.hanging():
        far.register(8)
        far.register(9)
    (first, _), _ = waiting_entries(far.registry)
    entry = json.loads((first / "entry.json").read_text())
    entry["candidate"]["name"] = "a:b"  # refused by MLflow
    (first / "entry.json").write_text(json.dumps(entry))
    shutil.copytree(first, first.with_name("000-broken"))
    (first.with_name("000-broken") / "entry.json").write_text("{")
    assert deliver_waiting(far.registry, note=far.notes.append) == 1
    assert far.versions[0] == 8
    assert [folder for folder, _ in waiting_entries(far.registry)] == [first]
    assert "it still waits in" in far.notes[-1]
    assert "can't be read" in caplog.text


_PROMOTES = """
import json, sys
from pathlib import Path
from pipelines.contracts import Candidate, Registration
from pipelines.registry.connection import Registry
from pipelines.registry.service import settle_run
registry = Registry(Path(sys.argv[1]), sys.argv[2])
for line in sys.stdin:
    registration = Registration.model_validate_json(line)
    print(settle_run(registry, registration, {"promote": True, "reasons": ["better"]}, note=lambda line: None), flush=True)
"""


def test_of_two_homes_that_promote_at_once_one_does(server: MlflowServer, tmp_path: Path) -> None:
    """Each was judged against the same champion: the other's model has to be judged again."""
    desks = [Desk(Registry(tmp_path / name, server.uri), []) for name in ("one", "two")]
    homes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROMOTES, str(desk.registry.home), server.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for desk in desks
    ]
    for number in range(5):
        registrations = [desk.register(100 + 2 * number + place) for place, desk in enumerate(desks)]
        assert registrations[0].champion == registrations[1].champion
        for home, registration in zip(homes, registrations, strict=True):
            assert home.stdin is not None
            home.stdin.write(f"{registration.model_dump_json()}\n")
            home.stdin.flush()
        promoted = [home.stdout.readline().strip() == "True" for home in homes if home.stdout is not None]
        assert promoted.count(True) == 1
        winner = registrations[promoted.index(True)]
        assert desks[0].champion == winner.version
        assert desks[0].history[-2:] == [winner.champion, winner.version]
    for home in homes:
        home.communicate()
