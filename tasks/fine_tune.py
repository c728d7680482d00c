"""Phase 2: the top layers of the backbone learn too, at a low rate."""

from __future__ import annotations

from pipelines.config import FineTuneConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.slices import TrainingConfig
from tasks.policies import Place, checkpoints_of, stage_task
from tasks.worker import run_stage


@stage_task("fine_tune")
def fine_tune_task(
    place: Place,
    prepared: PreparedImages,
    head_model: TrainedModel | None,
    activations: StoredActivations | None,
    config: TrainingConfig,
    settings: FineTuneConfig,
) -> TrainedModel:
    """Goes on from the head's best weights, or begins where there is no head phase."""
    read = {"prepared": prepared, "head_model": head_model, "activations": activations, "config": config}
    checkpoints = checkpoints_of(place, "fine_tune", settings=settings, **read)
    trained: TrainedModel = run_stage("fine_tune", home=place.home, fine_tune=settings, checkpoints=checkpoints, **read)
    return trained
