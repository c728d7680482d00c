"""Phase 2: the top layers of the backbone learn too, at a low rate."""

from __future__ import annotations

from prefect import task

from pipelines.config import FineTuneConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.slices import TrainingConfig
from tasks.policies import DescriptorSerializer, Place, StagePolicy, checkpoints_of
from tasks.progress import reporter


@task(
    name="fine_tune",
    task_run_name="fine_tune",
    cache_policy=StagePolicy(stage="fine_tune"),
    result_serializer=DescriptorSerializer(),
)
def fine_tune_task(
    place: Place,
    prepared: PreparedImages,
    head_model: TrainedModel | None,
    activations: StoredActivations | None,
    config: TrainingConfig,
    settings: FineTuneConfig,
) -> TrainedModel:
    """Goes on from the head's best weights, or begins where there is no head phase."""
    from pipelines.training.phases import fine_tune

    inputs = {
        "prepared": prepared,
        "head_model": head_model,
        "activations": activations,
        "config": config,
        "settings": settings,
    }
    checkpoints, report = checkpoints_of(place, "fine_tune", **inputs), reporter("fine_tune")
    return fine_tune(
        place.home, prepared, head_model, activations, config=config, fine_tune=settings, checkpoints=checkpoints, report=report
    )
