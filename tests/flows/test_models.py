"""The commands of the registry, and models of it wherever a command takes a run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.config import Recipe
from pipelines.contracts import DESCRIPTORS, Registration
from pipelines.registry.connection import Registry
from pipelines.run_folder import RunResults
from tests.command import run_command
from tests.flows.conftest import Runs
from tests.registry.conftest import Desk


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has three champions and one that was refused."""
    home = tmp_path_factory.mktemp("models") / "home"
    desk = Desk(Registry(home), [])
    desk.train(1, 2, 3)
    desk.settle(desk.register(4, accuracy=0.5), promote=False)
    return home


@pytest.fixture(autouse=True)
def _without_a_server_of_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def test_models_are_listed_in_short_and_one_by_one(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("models", "--home", home) == 0
    shown = capfd.readouterr().out
    assert [cell.strip() for cell in shown.splitlines()[4].split("│")[1:-1]] == ["pets", "4", "3", "0.7500 on test", "4"]
    assert "curves and pictures: mlflow ui --backend-store-uri sqlite:////" in shown
    assert run_command("models", "pets", "--home", home) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [(row[0], row[1], row[2], row[3], row[5]) for row in rows[:2]] == [
        ("4", "challenger", "0.5000 on test", "dddddddd", "keep: worse"),
        ("3", "champion", "0.7500 on test", "dddddddd", "promote: better"),
    ]
    history = lines[lines.index("champions, the last one first:") + 1 :]
    assert [line.split(",")[0].strip() for line in history[:3]] == ["version 3", "version 2", "version 1"]


def test_a_champion_is_made_and_unmade(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("promote", "pets", 4, "--reason", "a [bold] move", "--home", home) == 0
    assert run_command("promote", "pets", 4, "--home", home) == 0
    assert run_command("rollback", "pets", "--home", home) == 0
    assert run_command("rollback", "pets", "--to", 1, "--home", home) == 0
    assert run_command("rollback", "pets", "--to", 3, "--home", home) == 0
    assert capfd.readouterr().out.splitlines() == [
        "version 4 of pets is champion now; it was version 3",
        "version 4 of pets is champion already",
        "version 3 of pets is champion now; it was version 4",
        "version 1 of pets is champion now; it was version 3",
        "version 3 of pets is champion now; it was version 1",
    ]
    assert run_command("models", "pets", "--home", home) == 0
    assert ": a [bold] move" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["models", "cats"], 2, "the registry has no model 'cats'; it has 'pets'"),
        (["promote", "pets", "9"], 2, "`pets` has no version 9; it has 1, 2, 3, 4"),
        (["rollback", "cats"], 2, "the registry has no model 'cats'; it has 'pets'"),
        (
            ["predict", "models:/pets@best", ".", "--out", "p.parquet"],
            2,
            "`pets` has no alias 'best'; it has challenger, champion",
        ),
        (["evaluate", "models:/pets/9", "."], 2, "`pets` has no version 9; it has 1, 2, 3, 4"),
        (["describe", "models:/pets"], 2, "`MODEL` of a registry is models:/NAME@ALIAS or models:/NAME/VERSION"),
        (["models", "--registry", "mlruns"], 2, "`--registry` must be an address such as http://HOST:5000"),
        (["models", "--registry", "http://127.0.0.1:9"], 1, "the registry at http://127.0.0.1:9 does not answer"),
        (
            ["models", "--registry", "postgresql://me:secret@127.0.0.1:9/db"],
            1,
            "at postgresql://127.0.0.1:9/db does not answer",
        ),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    home: Path, arguments: list[str], status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*arguments, "--home", home) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_a_home_without_a_registry_gets_none_by_looking(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("models", "--home", tmp_path / "home") == 0
    assert "no model was registered in" in capfd.readouterr().out
    for arguments in (["models", "pets"], ["promote", "pets", "1"], ["rollback", "pets"]):
        assert run_command(*arguments, "--home", tmp_path / "home") == 2
        assert "no model was registered in" in capfd.readouterr().err
    assert not (tmp_path / "home" / "mlflow").exists()


def test_what_waits_is_said_and_delivered_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    registry = Registry(tmp_path / "home", f"sqlite:///{tmp_path}/later/mlflow.db")
    (tmp_path / "later").write_text("a file, where a folder must be")
    desk = Desk(registry, [])
    assert desk.register(1).version is None
    assert "mlflow.db can't be used: " in desk.notes[0]
    (tmp_path / "later").unlink()
    (tmp_path / "later").mkdir()
    at = ["--home", registry.home, "--registry", registry.uri]
    assert run_command("models", *at) == 0
    assert "1 runs and decisions wait for the registry: imagemill models --deliver" in capfd.readouterr().out
    assert run_command("models", "--deliver", *at) == 0
    shown = capfd.readouterr().out
    assert "1 waiting runs and decisions delivered" in shown
    assert "wait for the registry" not in shown
    assert desk.versions == [1]


def results_of(home: Path, folder: Path) -> RunResults:
    """What the stages of a run made, by their records."""
    found = {}
    for path in (home / "records").iterdir():
        record = json.loads(json.loads(path.read_text())["result"])
        found[path.name.rpartition("-")[0]] = DESCRIPTORS[record["descriptor"]].model_validate(record["data"])
    recipe = Recipe.model_validate(yaml.safe_load((folder / "config.yaml").read_text()))
    timings = json.loads((folder / "timings.json").read_text())
    return RunResults(recipe, found["ingest"], found["fine_tune"], found["evaluate"], found["export"], timings)


@pytest.mark.slow
def test_a_real_run_is_registered_promoted_and_used_by_its_name(
    warm: tuple[Runs, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from prefect import flow

    from tasks.promote import promote_task
    from tasks.register import register_task

    runs, folder = warm
    registry, results = Registry(tmp_path / "home"), results_of(runs.home, folder)
    shutil.copytree(runs.home / "artifacts", registry.home / "artifacts")

    @flow(persist_result=False)
    def register_and_promote() -> tuple[Registration, bool]:
        registration = register_task(registry, results, "photos")
        return registration, promote_task(registry, registration, {"promote": True, "reasons": ["the first"]})

    registration, promoted = register_and_promote()
    assert (registration.version, registration.champion, registration.settled, promoted) == (1, None, False, True)
    assert register_task.fn(registry, results, "photos").settled
    at = ["--home", registry.home]
    for name in ("models:/photos@champion", "models:/photos/1"):
        out = tmp_path / f"{len(name)}.parquet"
        assert run_command("predict", name, runs.source, "--out", out, *at) == 0
        received = {row["path"]: row["probability_cat"] for row in pq.read_table(out).to_pylist()}
        for row in pq.read_table(folder / "predictions.parquet").to_pylist():
            assert received[row["path"]] == pytest.approx(row["probability_cat"], abs=1e-5)
    assert run_command("evaluate", "models:/photos@champion", runs.source, "--split", "test", *at) == 0
    assert f"accuracy {json.loads((folder / 'metrics.json').read_text())['accuracy']:.4f}" in capfd.readouterr().out
    assert run_command("describe", "models:/photos@champion", *at) == 0
    assert "multiply-adds" in capfd.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.client_uri)
    from mlflow.keras import load_model

    model = load_model("models:/photos@champion")
    assert np.asarray(model(np.zeros((1, 32, 32, 3), np.float32))).shape == (1, 2)
