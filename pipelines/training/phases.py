"""The two phases: the head on a frozen backbone, then the top of the backbone too, with the best weights kept across both.

A from-scratch model has the second phase alone, in which all of it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.layers import augmentation_layers
from pipelines.augment.philox import Stream, image_ids
from pipelines.batch_size import advise_smaller
from pipelines.config import FineTuneConfig, HeadConfig, PhaseConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.data.batches import (
    EVALUATION_BATCH_SIZE,
    build_plain_dataset,
    build_train_dataset,
    build_view_dataset,
    examples_of_step,
    steps_per_epoch,
)
from pipelines.data.prepare import read_examples, read_split
from pipelines.errors import InputError, RunError
from pipelines.models.assemble import set_trainable_head, set_trainable_top
from pipelines.models.fast_layers import with_fast_layers
from pipelines.models.folding import fold_normalization
from pipelines.models.freeze_line import SplitModel, split_at_freeze_line
from pipelines.models.kept import take_classifier
from pipelines.progress import Report, ignore_progress
from pipelines.slices import TrainingConfig
from pipelines.store.activations import ViewReader
from pipelines.store.rows import RowReader
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.history import read_history
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.objective import balanced_class_weights
from pipelines.training.precision import layers_in
from pipelines.training.replicas import mirrored_on
from pipelines.training.state import load_weights, read_shown, save_trained
from pipelines.training.trainer import Learner


def train_head(
    home: Path,
    prepared: PreparedImages,
    features: StoredActivations | None = None,
    *,
    config: TrainingConfig,
    head: HeadConfig,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
) -> TrainedModel:
    """Phase 1: trains the head alone, from scratch, and publishes the best weights of its epochs.

    It learns from stored features, or from images where these are None.

    Raises:
        InputError: the batch is larger than the training split.
        WeightsUnavailableError: pretrained weights can't be had.
        RunError: the loss diverged.
    """
    data = _phase_data(home, prepared, config, features, head, first_epoch=0)
    with mirrored_on(config.devices):
        model = _build(prepared, config)
        set_trainable_head(model)
        learner, best = build_learner(model, config, features, 0), BestWeights()
        run = PhaseRun(learner, model, data, name="head", settings=head, best=best, checkpoints=checkpoints, report=report)
        run.run()
        return save_trained(home, "head", model, best=run.best, epochs=run.rows)


def fine_tune(
    home: Path,
    prepared: PreparedImages,
    head_model: TrainedModel | None,
    activations: StoredActivations | None = None,
    *,
    config: TrainingConfig,
    fine_tune: FineTuneConfig,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
) -> TrainedModel:
    """Phase 2: goes on from the head's best weights with the top layers learning too; without a head, from the beginning.

    The head's best weights stay the ones to beat: the result is never worse on validation. It learns from the stored
    activations at its freeze line, or from images where these are None.

    Raises:
        InputError: the batch is larger than the training split.
        WeightsUnavailableError: weights to begin with can't be had.
        RunError: the loss diverged.
    """
    with mirrored_on(config.devices):
        model = _build(prepared, config, weights_follow=head_model is not None)
        best, earlier_epochs, shown = BestWeights(), [], None
        if head_model is not None:
            load_weights(home, head_model, model)
            earlier_epochs, shown = read_history(home, head_model), read_shown(home, head_model)
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
        data = _phase_data(home, prepared, config, activations, fine_tune, first_epoch=first_epoch, shown=shown)
        learner = build_learner(model, config, activations, first_epoch)
        run = PhaseRun(
            learner, model, data, name="fine_tune", settings=fine_tune, best=best, checkpoints=checkpoints, report=report
        )
        run.run()
        return save_trained(home, "fine_tune", model, best=run.best, epochs=[*earlier_epochs, *run.rows])


def _build(prepared: PreparedImages, config: TrainingConfig, *, weights_follow: bool = False) -> Any:
    """The classifier; without pretrained weights where trained ones are put in right after."""
    make_deterministic(config.seed)
    shape = {"image_size": prepared.image_size, "num_classes": len(prepared.classes)}
    with layers_in(config.precision):
        return take_classifier(config.model, **shape, seed=config.seed, weights_follow=weights_follow)


def make_deterministic(seed: int) -> None:
    """Makes training a function of its inputs: work that is done again gives the same digest, and nothing after it re-runs."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def build_learner(model: keras.Model, config: TrainingConfig, stored: StoredActivations | None, first_epoch: int) -> Learner:
    """What a phase trains of a classifier whose layers are set trainable: the part above the freeze line.

    Args:
        model: of `build_classifier`.
        config: of training.
        stored: the activations that it learns from, or None for images.
        first_epoch: of the phase, counted over both.

    Raises:
        RunError: the stored activations are not those of this freeze line.
    """
    split = split_at_freeze_line(model)
    if stored is not None:
        return Learner(suffix_for(split, stored))
    augmentation = None
    if config.augment.where == "model":
        augmentation = augmentation_layers(config.augment, seed=config.seed + len(Stream) * first_epoch)
        augmentation.build((None, *model.input_shape[1:]))
    if split is None:
        return Learner(with_fast_layers(model), None, augmentation)
    return Learner(split.suffix, fold_normalization(split.prefix), augmentation)


def suffix_for(split: SplitModel | None, stored: StoredActivations) -> keras.Model:
    """The part above the freeze line, which takes what is stored.

    Raises:
        RunError: the stored activations are not those of this freeze line.
    """
    if split is None or split.shape != stored.shape:
        raise RunError(f"{stored.views[0].store} does not hold activations of this freeze line; remove that folder")
    return split.suffix


def _phase_data(
    home: Path,
    prepared: PreparedImages,
    config: TrainingConfig,
    stored: StoredActivations | None,
    settings: PhaseConfig,
    *,
    first_epoch: int,
    shown: Sequence[str] | None = None,
) -> PhaseData:
    """What a phase trains on; `first_epoch` numbers its epochs over both, so that no order and no augmentation comes twice."""
    train, validation = read_split(home, prepared, "train", only=shown), read_split(home, prepared, "validation")
    if config.batch_size > len(train):
        raise InputError(
            f"`batch_size` must not be larger than the training split of {len(train)} images;"
            f" received {config.batch_size}: {advise_smaller(len(train), devices=config.devices)}"
        )
    steps = steps_per_epoch(len(train), config.batch_size)
    order: dict[str, Any] = {
        "image_ids": image_ids(train.table["sha256"]),
        "batch_size": config.batch_size,
        "seed": config.seed,
        "sampling": config.sampling,
    }
    images: dict[str, Any] = {"num_classes": len(prepared.classes), "augment": config.augment}
    build: Callable[..., Any]
    judged: RowReader | ViewReader
    if stored is not None:
        judged = ViewReader(home, stored, validation.table["sha256"], views=1)
        build = partial(build_view_dataset, ViewReader(home, stored, train.table["sha256"], views=len(stored.views)))
    else:
        judged = read_examples(home, prepared, "validation")[1]
        build = partial(build_train_dataset, read_examples(home, prepared, "train", only=shown)[1], **images)

    def batches(step: int) -> Any:
        return build(labels=train.labels, start_step=first_epoch * steps + step, **order)

    def describe_batch(step: int) -> list[dict[str, Any]]:
        examples, mixed_with = examples_of_step(first_epoch * steps + step, train.labels, **order, **images)
        described: list[dict[str, Any]] = train.table.take(examples).to_pylist()
        if mixed_with is not None:
            for image, partner in zip(described, train.table.take(mixed_with).to_pylist(), strict=True):
                image["mixed_with"] = partner
        return described

    balanced = settings.class_weights == "balanced"
    return PhaseData(
        batches,
        _with_labels(judged, validation.labels),
        steps_per_epoch=steps,
        images_per_epoch=len(train),
        class_weights=balanced_class_weights(train.labels, len(prepared.classes)) if balanced else None,
        describe_batch=describe_batch,
    )


def _with_labels(reader: RowReader | ViewReader, labels: NDArray[np.int64]) -> Any:
    inputs = build_plain_dataset(reader, batch_size=EVALUATION_BATCH_SIZE)
    return tf.data.Dataset.zip((inputs, tf.data.Dataset.from_tensor_slices(labels).batch(EVALUATION_BATCH_SIZE)))
