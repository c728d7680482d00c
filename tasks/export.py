"""Export: `model.keras` and a SavedModel, proved equal to the trained model."""

from __future__ import annotations

from prefect import task

from pipelines.config import ModelConfig
from pipelines.contracts import ExportedModel, PreparedImages, TrainedModel
from tasks.policies import DescriptorSerializer, Place, StagePolicy
from tasks.progress import reporter


@task(
    name="export",
    task_run_name="export",
    cache_policy=StagePolicy(stage="export"),
    result_serializer=DescriptorSerializer(),
)
def export_task(place: Place, prepared: PreparedImages, trained: TrainedModel, model: ModelConfig, split: str) -> ExportedModel:
    """Writes and proves the exported formats."""
    from pipelines.export.export import export

    return export(place.home, place.source, prepared, trained, split=split, model=model, report=reporter("export"))
