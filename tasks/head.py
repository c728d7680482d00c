"""Phase 1: the head on a frozen backbone."""

from __future__ import annotations

from pipelines.config import HeadConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.slices import TrainingConfig
from tasks.policies import Place, checkpoints_of, stage_task
from tasks.worker import run_stage


@stage_task("head")
def head_task(
    place: Place, prepared: PreparedImages, features: StoredActivations | None, config: TrainingConfig, head: HeadConfig
) -> TrainedModel:
    """Trains the head."""
    inputs = {"prepared": prepared, "features": features, "config": config, "head": head}
    checkpoints = checkpoints_of(place, "head", **inputs)
    trained: TrainedModel = run_stage("head", home=place.home, checkpoints=checkpoints, **inputs)
    return trained
