"""The two phases: the head on a frozen backbone, then the top of the backbone too, with the best weights kept across both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import FineTuneConfig, HeadConfig, PhaseConfig
from pipelines.contracts import PreparedImages, TrainedModel
from pipelines.data.batches import EVALUATION_BATCH_SIZE, build_plain_dataset, build_train_dataset, steps_per_epoch
from pipelines.data.prepare import read_examples
from pipelines.errors import InputError
from pipelines.models.assemble import build_classifier, set_trainable_head, set_trainable_top
from pipelines.progress import Report, ignore_progress
from pipelines.slices import TrainingConfig
from pipelines.store.images import RowReader
from pipelines.training.callbacks import BestWeights, EpochLog, KeepBest, StopOnDivergence
from pipelines.training.state import load_weights, read_history, save_trained


@dataclass(frozen=True)
class TrainingData:
    """Pixels and labels of the training and validation splits."""

    train: RowReader
    train_labels: NDArray[np.int64]
    validation: RowReader
    validation_labels: NDArray[np.int64]


def train_head(
    home: Path,
    prepared: PreparedImages,
    *,
    config: TrainingConfig,
    head: HeadConfig,
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
    best, log = BestWeights(), EpochLog(phase="head", epochs=head.epochs, report=report)
    _run_phase(model, data, config=config, phase=head, first_epoch=0, best=best, log=log)
    return save_trained(home, "head", model, best=best, epochs=log.rows)


def fine_tune(
    home: Path,
    prepared: PreparedImages,
    head_model: TrainedModel,
    *,
    config: TrainingConfig,
    fine_tune: FineTuneConfig,
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
    log = EpochLog(phase="fine_tune", epochs=fine_tune.epochs, report=report)
    if fine_tune.epochs:
        set_trainable_top(model, layers=fine_tune.layers)
        data = _read_data(home, prepared)
        _run_phase(model, data, config=config, phase=fine_tune, first_epoch=len(earlier_epochs), best=best, log=log)
    return save_trained(home, "fine_tune", model, best=best, epochs=[*earlier_epochs, *log.rows])


def _build(prepared: PreparedImages, config: TrainingConfig, *, weights_follow: bool = False) -> Any:
    """The classifier; without pretrained weights where trained ones are put in right after."""
    make_deterministic(config.seed)
    model = config.model.model_copy(update={"weights": "none"}) if weights_follow else config.model
    return build_classifier(model, image_size=prepared.image_size, num_classes=len(prepared.classes), seed=config.seed)


def make_deterministic(seed: int) -> None:
    """Makes training a function of its inputs: work that is done again gives the same digest, and nothing after it re-runs."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _read_data(home: Path, prepared: PreparedImages) -> TrainingData:
    train, train_reader = read_examples(home, prepared, "train")
    validation, validation_reader = read_examples(home, prepared, "validation")
    return TrainingData(train_reader, train.labels, validation_reader, validation.labels)


def _run_phase(
    model: Any,
    data: TrainingData,
    *,
    config: TrainingConfig,
    phase: PhaseConfig,
    first_epoch: int,
    best: BestWeights,
    log: EpochLog,
) -> None:
    """Fits one phase and leaves the best weights so far in the model.

    `first_epoch` numbers its epochs over both phases, so that no order and no augmentation comes twice.
    """
    keras.utils.set_random_seed(config.seed + first_epoch)
    model.compile(
        optimizer=keras.optimizers.Adam(phase.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # four to ten times slower for convolutions on the CPU
    )
    train = build_train_dataset(
        data.train,
        data.train_labels,
        batch_size=config.batch_size,
        augment=config.augment,
        seed=config.seed,
        start_epoch=first_epoch,
    )
    log.images_per_epoch = len(data.train)
    model.fit(
        train,
        steps_per_epoch=steps_per_epoch(len(data.train), config.batch_size),
        epochs=phase.epochs,
        validation_data=_with_labels(data.validation, data.validation_labels),
        callbacks=[
            StopOnDivergence(log.phase),
            KeepBest(best, phase=log.phase),
            log,
            keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=phase.plateau_factor, patience=phase.plateau_patience),
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=phase.patience),
        ],
        shuffle=False,  # the order is already a global permutation
        verbose=0,
    )
    model.set_weights(best.weights)


def _with_labels(reader: RowReader, labels: NDArray[np.int64]) -> Any:
    images = build_plain_dataset(reader, batch_size=EVALUATION_BATCH_SIZE)
    return tf.data.Dataset.zip((images, tf.data.Dataset.from_tensor_slices(labels).batch(EVALUATION_BATCH_SIZE)))
