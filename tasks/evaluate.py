"""Evaluate: predictions and figures on the split that judges the model."""

from __future__ import annotations

from pipelines.config import ModelConfig
from pipelines.contracts import Evaluation, PreparedImages, TrainedModel
from tasks.policies import Place, stage_task
from tasks.worker import run_stage


@stage_task("evaluate")
def evaluate_task(place: Place, prepared: PreparedImages, trained: TrainedModel, model: ModelConfig, split: str) -> Evaluation:
    """Evaluates the trained model on one split."""
    judged = {"prepared": prepared, "trained": trained, "model": model, "split": split}
    evaluation: Evaluation = run_stage("evaluate", home=place.home, **judged)
    return evaluation
