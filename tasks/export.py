"""Export: `model.keras` and a SavedModel, proved equal to the trained model."""

from __future__ import annotations

from pipelines.config import ModelConfig
from pipelines.contracts import ExportedModel, PreparedImages, TrainedModel
from tasks.policies import Place, stage_task
from tasks.worker import run_stage


@stage_task("export")
def export_task(place: Place, prepared: PreparedImages, trained: TrainedModel, model: ModelConfig, split: str) -> ExportedModel:
    """Writes and proves the exported formats."""
    judged = {"prepared": prepared, "trained": trained, "model": model, "split": split}
    exported: ExportedModel = run_stage("export", home=place.home, root=place.source, **judged)
    return exported
