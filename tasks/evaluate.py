"""Evaluate: predictions and figures on the split that judges the model."""

from __future__ import annotations

from prefect import task

from pipelines.config import ModelConfig
from pipelines.contracts import Evaluation, PreparedImages, TrainedModel
from tasks.policies import DescriptorSerializer, Place, StagePolicy
from tasks.progress import reporter


@task(
    name="evaluate",
    task_run_name="evaluate",
    cache_policy=StagePolicy(stage="evaluate"),
    result_serializer=DescriptorSerializer(),
)
def evaluate_task(place: Place, prepared: PreparedImages, trained: TrainedModel, model: ModelConfig, split: str) -> Evaluation:
    """Evaluates the trained model on one split."""
    from pipelines.evaluation.evaluate import evaluate

    return evaluate(place.home, prepared, trained, split=split, model=model, report=reporter("evaluate"))
