"""Phase 1: the head on a frozen backbone."""

from __future__ import annotations

from prefect import task

from pipelines.config import HeadConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.slices import TrainingConfig
from tasks.policies import DescriptorSerializer, Place, StagePolicy, checkpoints_of
from tasks.progress import reporter


@task(name="head", task_run_name="head", cache_policy=StagePolicy(stage="head"), result_serializer=DescriptorSerializer())
def head_task(
    place: Place, prepared: PreparedImages, features: StoredActivations | None, config: TrainingConfig, head: HeadConfig
) -> TrainedModel:
    """Trains the head."""
    from pipelines.training.phases import train_head

    checkpoints = checkpoints_of(place, "head", prepared=prepared, features=features, config=config, head=head)
    return train_head(
        place.home, prepared, features, config=config, head=head, checkpoints=checkpoints, report=reporter("head")
    )
