"""A warm start: the champion's weights in place of what the head phase would have made, where they mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import FineTuneConfig
from pipelines.contracts import PreparedImages, TrainedModel
from pipelines.data.prepare import read_examples
from pipelines.evaluation.metrics import compute_metrics
from pipelines.evaluation.predictions import predict_probabilities
from pipelines.inference import load_finished
from pipelines.models.assemble import backbone_of, build_classifier, set_trainable_top, with_probabilities
from pipelines.models.freeze_line import split_at_freeze_line, weights_digest
from pipelines.models.weights_file import mend_normalization
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.slices import TrainingConfig
from pipelines.training.loop import BestWeights
from pipelines.training.state import save_trained

STAGE = "warm_start"


def start_warm(
    home: Path,
    prepared: PreparedImages,
    champion: Path,
    *,
    config: TrainingConfig,
    fine_tune: FineTuneConfig,
    report: Report = ignore_progress,
) -> TrainedModel | str:
    """Publishes the champion's weights as a trained model that phase 2 can go on from.

    Its figures are those on the current validation images, so that phase 2 keeps the champion's weights where it finds none
    that are better there. Equal weights give an equal digest, and the stages after it are hits.

    Args:
        home: of the artifacts.
        prepared: the current images.
        champion: run folder.
        config: of training.
        fine_tune: phase 2, whose `layers` decide what stays frozen.
        report: hears of the validation images that the champion has judged.

    Returns:
        The model, or why there is none: what of the champion differs.

    Raises:
        InputError: the champion's run folder can't be read.
    """
    finished = load_finished(champion)
    if finished.classes != prepared.classes:
        return f"it knows {len(finished.classes)} classes, and not just those of the data, which has {len(prepared.classes)}"
    model = build_classifier(config.model, image_size=prepared.image_size, num_classes=len(prepared.classes), seed=config.seed)
    weights = [np.asarray(weight) for weight in finished.model.weights]
    same_network = backbone_of(finished.model).name == backbone_of(model).name
    if not same_network or [weight.shape for weight in weights] != [tuple(weight.shape) for weight in model.weights]:
        return "it has another network than the recipe's `model`"
    set_trainable_top(model, layers=fine_tune.layers)
    frozen = _frozen_digest(model)
    model.set_weights(weights)
    mend_normalization(backbone_of(model))
    if _frozen_digest(model) != frozen:
        return "its layers below `fine_tune.layers` are not those that the recipe keeps frozen"
    examples, reader = read_examples(home, prepared, "validation")

    def count(done: int) -> None:
        report(Progress(done, len(examples), "images"))

    probabilities = predict_probabilities(with_probabilities(model), reader, report=count)
    figures = compute_metrics(examples.labels, probabilities, classes=prepared.classes, split="validation")
    best = BestWeights(phase="champion", val_accuracy=figures["accuracy"], val_loss=figures["loss"])
    return save_trained(home, STAGE, model, best=best, epochs=[])


def _frozen_digest(model: Any) -> str | None:
    """What the part below the freeze line computes; None where all of the model learns."""
    split = split_at_freeze_line(model)
    return None if split is None else weights_digest(split.prefix, name=split.line)
