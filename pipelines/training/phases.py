"""The two phases: the head on a frozen backbone, then the top of the backbone too, with the best weights kept across both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.layers import with_augmentation
from pipelines.augment.philox import Stream, image_ids
from pipelines.config import FineTuneConfig, HeadConfig, PhaseConfig
from pipelines.contracts import PreparedImages, TrainedModel
from pipelines.data.batches import (
    EVALUATION_BATCH_SIZE,
    build_plain_dataset,
    build_train_dataset,
    examples_of_step,
    steps_per_epoch,
)
from pipelines.data.prepare import read_examples
from pipelines.errors import InputError
from pipelines.models.assemble import build_classifier, set_trainable_head, set_trainable_top
from pipelines.progress import Report, ignore_progress
from pipelines.slices import TrainingConfig
from pipelines.store.images import RowReader
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.history import read_history
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.objective import balanced_class_weights
from pipelines.training.precision import layers_in
from pipelines.training.state import load_weights, save_trained


@dataclass(frozen=True)
class TrainingData:
    """Pixels and labels of the training and validation splits, and names of the training images.

    `train_files` has the columns `path` and `sha256`.
    """

    train: RowReader
    train_labels: NDArray[np.int64]
    train_ids: NDArray[np.uint64]
    train_files: pa.Table
    validation: RowReader
    validation_labels: NDArray[np.int64]
    num_classes: int


def train_head(
    home: Path,
    prepared: PreparedImages,
    *,
    config: TrainingConfig,
    head: HeadConfig,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
) -> TrainedModel:
    """Phase 1: trains the head alone, from scratch, and publishes the best weights of its epochs.

    Raises:
        InputError: the batch is larger than the training split.
        WeightsUnavailableError: pretrained weights can't be had.
        RunError: the loss diverged.
    """
    data = _read_data(home, prepared)
    if config.batch_size > len(data.train):
        raise InputError(
            f"`batch_size` must not be larger than the training split of {len(data.train)} images;"
            f" received {config.batch_size}: lower it, such as by --set batch_size=8"
        )
    model = _build(prepared, config)
    set_trainable_head(model)
    batches = _phase_data(data, config, head, first_epoch=0)
    trained = with_augmentation(model, config.augment, seed=config.seed)
    run = PhaseRun(
        trained, model, batches, name="head", settings=head, best=BestWeights(), checkpoints=checkpoints, report=report
    )
    run.run()
    return save_trained(home, "head", model, best=run.best, epochs=run.rows)


def fine_tune(
    home: Path,
    prepared: PreparedImages,
    head_model: TrainedModel,
    *,
    config: TrainingConfig,
    fine_tune: FineTuneConfig,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
) -> TrainedModel:
    """Phase 2: goes on from the head's best weights with the top layers learning too.

    The head's best weights stay the ones to beat: the result is never worse on validation.

    Raises:
        RunError: the loss diverged.
    """
    model = _build(prepared, config, weights_follow=True)
    load_weights(home, head_model, model)
    earlier_epochs = read_history(home, head_model)
    best = BestWeights(
        phase=head_model.phase,
        epoch=head_model.epoch,
        val_accuracy=head_model.val_accuracy,
        val_loss=head_model.val_loss,
        weights=model.get_weights(),
    )
    if not fine_tune.epochs:
        return save_trained(home, "fine_tune", model, best=best, epochs=earlier_epochs)
    set_trainable_top(model, layers=fine_tune.layers)
    first_epoch = len(earlier_epochs)
    batches = _phase_data(_read_data(home, prepared), config, fine_tune, first_epoch=first_epoch)
    trained = with_augmentation(model, config.augment, seed=config.seed + len(Stream) * first_epoch)
    run = PhaseRun(
        trained, model, batches, name="fine_tune", settings=fine_tune, best=best, checkpoints=checkpoints, report=report
    )
    run.run()
    return save_trained(home, "fine_tune", model, best=run.best, epochs=[*earlier_epochs, *run.rows])


def _build(prepared: PreparedImages, config: TrainingConfig, *, weights_follow: bool = False) -> Any:
    """The classifier; without pretrained weights where trained ones are put in right after."""
    make_deterministic(config.seed)
    model = config.model.model_copy(update={"weights": "none"}) if weights_follow else config.model
    with layers_in(config.precision):
        return build_classifier(model, image_size=prepared.image_size, num_classes=len(prepared.classes), seed=config.seed)


def make_deterministic(seed: int) -> None:
    """Makes training a function of its inputs: work that is done again gives the same digest, and nothing after it re-runs."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _read_data(home: Path, prepared: PreparedImages) -> TrainingData:
    train, train_reader = read_examples(home, prepared, "train")
    validation, validation_reader = read_examples(home, prepared, "validation")
    ids = image_ids(train.table["sha256"])
    num_classes = len(prepared.classes)
    return TrainingData(train_reader, train.labels, ids, train.table, validation_reader, validation.labels, num_classes)


def _phase_data(data: TrainingData, config: TrainingConfig, settings: PhaseConfig, *, first_epoch: int) -> PhaseData:
    """What a phase trains on; `first_epoch` numbers its epochs over both, so that no order and no augmentation comes twice."""
    steps = steps_per_epoch(len(data.train), config.batch_size)
    options: dict[str, Any] = {
        "image_ids": data.train_ids,
        "num_classes": data.num_classes,
        "batch_size": config.batch_size,
        "augment": config.augment,
        "seed": config.seed,
        "sampling": config.sampling,
    }

    def batches(step: int) -> Any:
        return build_train_dataset(data.train, data.train_labels, start_step=first_epoch * steps + step, **options)

    def describe_batch(step: int) -> list[dict[str, Any]]:
        shown, mixed_with = examples_of_step(first_epoch * steps + step, data.train_labels, **options)
        files = data.train_files.select(["path", "sha256"])
        images: list[dict[str, Any]] = files.take(shown).to_pylist()
        if mixed_with is not None:
            for image, partner in zip(images, files.take(mixed_with).to_pylist(), strict=True):
                image["mixed_with"] = partner
        return images

    balanced = settings.class_weights == "balanced"
    return PhaseData(
        batches,
        _with_labels(data.validation, data.validation_labels),
        steps_per_epoch=steps,
        images_per_epoch=len(data.train),
        class_weights=balanced_class_weights(data.train_labels, data.num_classes) if balanced else None,
        describe_batch=describe_batch,
    )


def _with_labels(reader: RowReader, labels: NDArray[np.int64]) -> Any:
    images = build_plain_dataset(reader, batch_size=EVALUATION_BATCH_SIZE)
    return tf.data.Dataset.zip((images, tf.data.Dataset.from_tensor_slices(labels).batch(EVALUATION_BATCH_SIZE)))
