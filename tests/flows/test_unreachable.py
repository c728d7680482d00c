"""A retraining while MLflow's server is away: it trains all the same, and is registered and judged when the server is back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.run_commands import RUN_FILES
from pipelines.registry.connection import Registry, connected
from pipelines.registry.fetch import fetch, parse_reference
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.promote import check_model
from pipelines.registry.versions import list_versions
from pipelines.store.artifacts import file_digest
from tests.flows.commands import finish, run_folder, start_command, write_recipe
from tests.mlflow_server import MlflowServer
from tests.sources.folders import write_tinted

pytestmark = pytest.mark.slow


def test_a_retraining_without_the_registry_is_whole_and_is_registered_once_when_it_is_back(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)  # nobody listens yet
    source = write_tinted(tmp_path / "photos", {"red": 12, "green": 12})
    recipe = write_recipe(tmp_path / "recipe.yaml", registry={"enabled": True, "uri": server.uri})
    command = ("retrain", source, "--config", recipe, "--home", tmp_path / "home")
    registry = Registry(tmp_path / "home", server.uri)
    said = finish(start_command(*command))
    assert f"the registry at {server.uri} does not answer" in said
    assert "the run waits in " in said
    folder = run_folder(said)
    assert [name for name, _ in RUN_FILES if not (folder / name).exists()] == ["gate.json"]
    trained = file_digest(folder / "model.keras")
    assert len(waiting_entries(registry)) == 1
    server.start()
    try:
        said = finish(start_command(*command))
        assert "1 runs and decisions that waited for the registry are delivered" in said
        stages = json.loads((run_folder(said) / "timings.json").read_text())["stages"]
        assert {name for name, stage in stages.items() if stage["cache"] == "miss"} == {"scan"}
        assert json.loads((run_folder(said) / "gate.json").read_text())["promote"] is True
        assert waiting_entries(registry) == []
        with connected(registry) as client:
            assert [version.number for version in list_versions(client, "photos")] == [1]
            assert int(check_model(client, "photos").aliases["champion"]) == 1  # a server says "1"
        assert file_digest(fetch(registry, parse_reference("models:/photos@champion")) / "model.keras") == trained
    finally:
        server.kill()
