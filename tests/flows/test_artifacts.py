"""What the pages of a server show of a stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from pipelines.contracts import Descriptor, Evaluation, ImageIndex, TrainedModel
from pipelines.progress import Progress
from tasks.artifacts import describe, progress_shown, show_stage
from tests.flows.conftest import Runs


def read_record(home: Path, kind: type[Descriptor]) -> Descriptor:
    """What a stage of a run in this home returned."""
    records = [json.loads(json.loads(path.read_text())["result"]) for path in (home / "records").iterdir()]
    return next(kind.model_validate(record["data"]) for record in records if record["descriptor"] == kind.__name__)


@pytest.fixture
def artifacts(prefect_server: None) -> Iterator[Any]:
    """Reads the newest artifact of a key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:

        def read(key: str) -> Any:
            (found,) = client.request("POST", "/artifacts/latest/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
            return found

        yield read


def test_what_a_stage_made_is_shown_under_its_name(warm: tuple[Runs, Path], artifacts: Any) -> None:
    home = warm[0].home

    @task
    def show() -> None:
        show_stage(home, "evaluate", read_record(home, Evaluation))
        show_stage(home, "fine_tune", read_record(home, TrainedModel))
        show_stage(home, "ingest", read_record(home, ImageIndex))

    flow(show.fn)()
    assert "'class': 'cat'" in str(artifacts("evaluate")["data"]).replace('"', "'")
    assert artifacts("evaluate-confusion")["data"].startswith("data:image/png;base64,")
    assert artifacts("fine-tune")["description"].startswith("kept: the weights of ")
    assert "| train | " in artifacts("ingest")["data"]
    assert describe(None, home) == []


def test_progress_moves_and_ends_at_all_of_it(artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.artifacts._SECONDS_BETWEEN_UPDATES", 0.0)
    heard: list[Progress] = []
    seen: list[float] = []

    @flow
    def work() -> None:
        with progress_shown("embed", heard.append) as report:
            report(Progress(1, 4, "images"))
            seen.append(artifacts("embed-progress")["data"])

    work()
    assert seen == [25.0]
    assert artifacts("embed-progress")["data"] == 100.0
    assert heard == [Progress(1, 4, "images")]
