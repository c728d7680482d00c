"""A trained model at rest: its weights, the history that led there, and the seconds it took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import ModelConfig
from pipelines.contracts import PreparedImages, TrainedModel
from pipelines.errors import RunError
from pipelines.models.assemble import backbone_of
from pipelines.models.kept import take_classifier
from pipelines.models.weights_file import mend_normalization
from pipelines.store.artifacts import artifact_path, disk_errors, publish, read_json, scratch_folder, write_json
from pipelines.training.history import write_history
from pipelines.training.loop import BestWeights

WEIGHTS = "weights.npz"
SHOWN = "shown.json"  # digests of files


def save_trained(
    home: Path,
    stage: str,
    model: Any,
    *,
    best: BestWeights,
    epochs: Sequence[dict[str, Any]],
    shown: Sequence[str] | None = None,
) -> TrainedModel:
    """Publishes the weights that are in the model, which are the best ones, with the history of all epochs.

    Args:
        home: of the artifacts.
        stage: that made it.
        model: whose weights to keep.
        best: the figures of these weights.
        epochs: rows of the history.
        shown: SHA-256 of the training images that the next phase is to show; None for all.
    """
    with scratch_folder(home) as folder:
        with disk_errors(home):
            np.savez(folder / WEIGHTS, *[np.asarray(variable) for variable in model.weights])
        if shown is not None:
            write_json(folder / SHOWN, sorted(shown))
        write_history(folder, epochs)
        artifact = publish(home, stage, folder)
    return TrainedModel(
        artifact=artifact,
        phase=best.phase,
        epoch=best.epoch,
        val_accuracy=best.val_accuracy,
        val_loss=best.val_loss,
    )


def load_weights(home: Path, trained: TrainedModel, model: Any) -> None:
    """Puts trained weights into a model of the same architecture, by position.

    Not by name: Keras numbers unnamed layers through the whole process, so a second build has other names.

    Raises:
        RunError: numbers or shapes differ.
    """
    with np.load(artifact_path(home, trained.artifact) / WEIGHTS, allow_pickle=False) as stored:
        weights = [stored[f"arr_{number}"] for number in range(len(stored.files))]
        if [array.shape for array in weights] != [tuple(variable.shape) for variable in model.weights]:
            raise RunError(f"the weights of {trained.artifact.path} are not those of this architecture; remove that folder")
        model.set_weights(weights)
        mend_normalization(backbone_of(model))


def read_shown(home: Path, trained: TrainedModel) -> list[str] | None:
    """SHA-256 of the training images that the phase after this model shows; None for all."""
    path = artifact_path(home, trained.artifact) / SHOWN
    shown: list[str] | None = read_json(path) if path.exists() else None
    return shown


def rebuild(home: Path, prepared: PreparedImages, trained: TrainedModel, *, model: ModelConfig) -> Any:
    """The trained Keras model, from its description and its weights; gives logits float32 [B, classes]."""
    shape = {"image_size": prepared.image_size, "num_classes": len(prepared.classes)}
    rebuilt = take_classifier(model, **shape, seed=0, weights_follow=True)
    load_weights(home, trained, rebuilt)
    return rebuilt
