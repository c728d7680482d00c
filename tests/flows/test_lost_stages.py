"""Heavy stages that are not kept in the cache, when their process is lost: tried once more, like those that are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Recipe
from pipelines.contracts import Artifact, PreparedImages, TrainedModel
from pipelines.progress import Report
from pipelines.slices import training_slice
from tasks.worker import WorkerLostError, use_worker

STARTED = TrainedModel(artifact=Artifact(path="x", digest="1"), phase="champion", epoch=0, val_accuracy=1, val_loss=0)


class Losing:
    """A worker whose process is lost so many times before it returns what it should."""

    def __init__(self, losses: int) -> None:
        self.losses, self.asked = losses, 0

    def expect(self) -> None:
        """Nothing."""

    def rest(self) -> None:
        """Nothing."""

    def run(self, stage: str, arguments: Mapping[str, Any], *, report: Report) -> Any:
        """The champion, in the end."""
        assert stage == "warm_start"
        self.asked += 1
        if self.asked <= self.losses:
            raise WorkerLostError("the process of stage `warm_start` ended by SIGKILL")
        return STARTED


def start_warm_by(worker: Losing) -> TrainedModel | None:
    """Runs the task in a flow."""
    from prefect import flow

    from tasks.policies import Place
    from tasks.warm_start import warm_start_task

    recipe = Recipe()
    prepared = PreparedImages.model_construct(artifact=STARTED.artifact)

    @flow(persist_result=False)
    def warmly() -> TrainedModel | None:
        place = Place(Path("/home"), Path("/source"))
        inputs = {"activations": None, "config": training_slice(recipe), "settings": recipe.fine_tune, "replay": None}
        return warm_start_task(place, prepared=prepared, champion=Path("/champion"), **inputs)

    with use_worker(worker):
        return warmly()


@pytest.mark.usefixtures("prefect_server")
def test_a_warm_start_whose_process_was_lost_is_tried_once_more() -> None:
    worker = Losing(1)
    assert start_warm_by(worker) == STARTED
    assert worker.asked == 2
    worker = Losing(2)
    with pytest.raises(WorkerLostError):
        start_warm_by(worker)
    assert worker.asked == 2
