"""What runs are called on Prefect's real temporary server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pipelines.config import Recipe
from pipelines.sources.content import digest_source
from pipelines.sources.source import FolderSource
from pipelines.store.artifacts import file_digest
from tests.flows.conftest import LEARNS, TINY, Runs

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


def run_names(dataset: str) -> set[str]:
    """The names of all flow runs that say this data set, as the API has them."""
    from prefect.settings import PREFECT_API_URL

    query = {"flow_runs": {"name": {"like_": dataset}}}
    answer = httpx.post(f"{PREFECT_API_URL.value()}/flow_runs/filter", json=query).raise_for_status()
    return {run["name"] for run in answer.json()}


def test_runs_are_called_by_data_set_and_digest(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    from flows.predict_flow import predict_flow
    from flows.retrain import retrain
    from flows.train import train_model
    from flows.watch import watch

    source, home, dataset = str(colours[0].source), str(tmp_path / "home"), f"named {tmp_path.name}"
    recipe = Recipe.model_validate({**TINY, **LEARNS, "name": dataset, "registry": {"enabled": True}})
    run = Path(train_model(source, recipe, home, str(tmp_path / "run")))
    retrain(source, recipe, home)
    watch(source, home, dataset)
    predict_flow(str(run), source, home=home)
    content, model = digest_source(tmp_path / "home", FolderSource(Path(source)))[:12], file_digest(run / "model.keras")[:12]
    assert run_names(dataset) == {
        f"train {dataset} {content}",
        f"retrain {dataset} {content}",
        f"watch {dataset} {content}",
        f"predict photos by {dataset} {model}",
    }


def test_a_run_that_can_not_be_renamed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from prefect.client.orchestration import SyncPrefectClient

    from flows.run_names import name_run

    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("gone")

    @flow(flow_run_name=f"unnamed {tmp_path.name}")
    def rename() -> str:
        monkeypatch.setattr(SyncPrefectClient, "update_flow_run", refuse)
        name_run("train", "photos", "0123")
        monkeypatch.undo()
        return "went on"

    assert rename() == "went on"
    assert run_names(tmp_path.name) == {f"unnamed {tmp_path.name}"}
