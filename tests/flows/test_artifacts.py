"""What the pages of a server show of a stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from pipelines.contracts import Descriptor, Embedded, Evaluation, ExportedModel, ImageIndex, PreparedImages, TrainedModel
from pipelines.progress import Progress
from pipelines.training.history import read_history
from tasks.artifacts import describe, progress_shown, show_stage
from tests.flows.conftest import STAGES, Runs


def read_records(home: Path, kind: type[Descriptor]) -> Iterator[Any]:
    """What stages of a run in this home returned."""
    for path in (home / "records").iterdir():
        record = json.loads(json.loads(path.read_text())["result"])
        if record["descriptor"] == kind.__name__:
            yield kind.model_validate(record["data"])


def read_record(home: Path, kind: type[Descriptor]) -> Any:
    """What the stage returned that makes such a descriptor."""
    return next(read_records(home, kind))


@pytest.fixture
def artifacts(prefect_server: None) -> Iterator[Any]:
    """Reads the newest artifact of a key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:

        def read(key: str) -> Any:
            (found,) = client.request("POST", "/artifacts/latest/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
            return found

        yield read


def test_what_each_stage_made_is_shown_under_its_name_with_its_figures(warm: tuple[Runs, Path], artifacts: Any) -> None:
    home = warm[0].home
    # Either may have kept the weights of the head: fine-tuning is the one with the longer history.
    trained = sorted(read_records(home, TrainedModel), key=lambda made: len(read_history(home, made)))
    exported = read_record(home, ExportedModel)
    made = {
        "ingest": read_record(home, ImageIndex),
        "prepare": read_record(home, PreparedImages),
        "embed": read_record(home, Embedded),
        "head": trained[0],
        "fine_tune": trained[-1],
        "evaluate": read_record(home, Evaluation),
        "export": exported,
    }
    assert list(made) == STAGES  # a new one has to be shown too

    @task
    def show() -> None:
        for stage, descriptor in made.items():
            show_stage(home, stage, descriptor)

    flow(show.fn)()
    assert f"| train | {made['ingest'].examples['train']} |" in artifacts("ingest")["data"]
    assert artifacts("prepare")["data"].startswith("32 x 32 px (")
    assert artifacts("prepare")["data"].endswith(f", in {len(made['prepare'].shards)} shards")
    assert artifacts("embed")["data"].startswith("cache activations: 48 rows of 8x8x8 at ")
    for stage, epochs in ("head", 1), ("fine_tune", 2):
        shown, kept = artifacts(stage.replace("_", "-")), made[stage]
        assert shown["description"].startswith(f"kept: the weights of {kept.phase}, epoch {kept.epoch}: accuracy ")
        assert len(json.loads(shown["data"])) == epochs
        assert [row["loss"] for row in json.loads(shown["data"])] == [round(row["loss"], 6) for row in read_history(home, kept)]
    assert "'class': 'cat'" in str(artifacts("evaluate")["data"]).replace('"', "'")
    assert artifacts("evaluate-confusion")["data"].startswith("data:image/png;base64,")
    assert artifacts("export")["data"].startswith(f"proved on {exported.compared} images: probabilities differ by at most ")
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
