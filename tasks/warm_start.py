"""Warm start: the champion's weights for phase 2 to go on from. Not cached: equal weights give one digest."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pipelines.config import FineTuneConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.slices import TrainingConfig
from tasks.policies import Place, was_lost
from tasks.progress import current_listener
from tasks.worker import run_stage


@task(
    name="warm_start",
    task_run_name="warm_start",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_condition_fn=was_lost,
)
def warm_start_task(
    place: Place,
    prepared: PreparedImages,
    champion: Path,
    activations: StoredActivations | None,
    config: TrainingConfig,
    settings: FineTuneConfig,
    replay: int | None,
) -> TrainedModel | None:
    """Takes the champion's weights, or says why it does not and returns None."""
    read = {"prepared": prepared, "champion": champion, "activations": activations}
    read |= {"config": config, "fine_tune": settings, "replay": replay}
    started: TrainedModel | str = run_stage("warm_start", home=place.home, **read)
    if isinstance(started, TrainedModel):
        return started
    line = f"no warm start from the champion: {started}; training starts afresh"
    current_listener().noted(line)
    get_run_logger().info(line)
    return None
