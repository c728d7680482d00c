"""A warm start: the champion's weights in place of what the head phase would have made, where they mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import FineTuneConfig
from pipelines.contracts import CHAMPION, PreparedImages, StoredActivations, TrainedModel
from pipelines.data.prepare import Examples, read_examples, read_split
from pipelines.errors import InputError, one_line
from pipelines.evaluation.metrics import compute_metrics
from pipelines.evaluation.predictions import predict_probabilities
from pipelines.inference import load_finished
from pipelines.models.assemble import backbone_of, build_classifier, set_trainable_top, with_probabilities
from pipelines.models.freeze_line import SplitModel, split_at_freeze_line, weights_digest
from pipelines.models.weights_file import mend_normalization
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.run_folder import INDEX, read_learned
from pipelines.slices import TrainingConfig
from pipelines.store.activations import ViewReader
from pipelines.store.rows import RowReader
from pipelines.training.loop import BestWeights
from pipelines.training.phases import suffix_for
from pipelines.training.state import save_trained

STAGE = "warm_start"


def start_warm(
    home: Path,
    prepared: PreparedImages,
    champion: Path,
    activations: StoredActivations | None = None,
    *,
    config: TrainingConfig,
    fine_tune: FineTuneConfig,
    replay: int | None = None,
    report: Report = ignore_progress,
) -> TrainedModel | str:
    """Publishes the champion's weights as a trained model that phase 2 can go on from.

    Its figures are those on the current validation images, so that phase 2 keeps the champion's weights where it finds none
    that are better there. Equal weights give an equal digest, and the stages after it are hits.

    Args:
        home: of the artifacts.
        prepared: the current images.
        champion: run folder.
        activations: that phase 2 learns from and is judged on, as the champion is here; None for images.
        config: of training.
        fine_tune: phase 2, whose `layers` decide what stays frozen.
        replay: how many images that the champion has learned phase 2 shows with each new one; None for all.
        report: hears of the validation images that the champion has judged, and of what phase 2 will show.

    Returns:
        The model, or why there is none: what of the champion differs.

    Raises:
        InputError: the champion's run folder can't be read.
        RunError: a row can't be read, or the activations are not those of the freeze line.
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
    split = split_at_freeze_line(model)
    frozen = _frozen_digest(split)
    model.set_weights(weights)
    mend_normalization(backbone_of(model))
    if _frozen_digest(split) != frozen:
        return "its layers below `fine_tune.layers` are not those that the recipe keeps frozen"
    judged = model if activations is None else suffix_for(split, activations)
    best = _judge(home, prepared, judged, activations, report)
    shown = None
    if replay is not None:
        shown, line = _draw_shown(read_split(home, prepared, "train"), champion, prepared.classes, config, replay)
        report(Progress(1, 1, "models", line, milestone=True))
    return save_trained(home, STAGE, model, best=best, epochs=[], shown=shown)


def _judge(
    home: Path, prepared: PreparedImages, model: Any, activations: StoredActivations | None, report: Report
) -> BestWeights:
    """A champion's figures on the validation images, by their activations or by their pixels."""
    reader: RowReader | ViewReader
    if activations is None:
        examples, reader = read_examples(home, prepared, "validation")
    else:
        examples = read_split(home, prepared, "validation")
        reader = ViewReader(home, activations, examples.table["sha256"], views=1)

    def count(done: int) -> None:
        report(Progress(done, len(examples), "images"))

    probabilities = predict_probabilities(with_probabilities(model), reader, report=count)
    figures = compute_metrics(examples.labels, probabilities, classes=prepared.classes, split="validation")
    return BestWeights(phase=CHAMPION, val_accuracy=figures["accuracy"], val_loss=figures["loss"])


def choose_shown(new: NDArray[np.bool_], *, replay: int, at_least: int, seed: int) -> NDArray[np.int64] | None:
    """The training images that phase 2 shows after a warm start: all new ones, and some that the champion has learned.

    Args:
        new: bool [n], of all training images.
        replay: known ones for each new one.
        at_least: how many to show where there are so many; a batch must be full.
        seed: of the draw.

    Returns:
        int64 [m], their numbers in rising order. None for all: where the draw would take them all, and where none is new.
        Then images have gone, or moved between the splits, and nothing says which of the rest should make up for it.
    """
    numbers = np.arange(len(new))
    added = int(new.sum())
    replayed = max(added * replay, at_least - added)
    if not added or replayed >= len(new) - added:
        return None
    drawn = np.random.default_rng(seed).choice(numbers[~new], replayed, replace=False)
    return np.sort(np.concatenate([numbers[new], drawn]))


def _draw_shown(
    train: Examples, champion: Path, classes: Sequence[str], config: TrainingConfig, replay: int
) -> tuple[list[str] | None, str]:
    """Digests of the training images that phase 2 shows, None for all, and a line that says how many. A new label is new."""
    try:
        learned = set(zip(*(column.to_pylist() for column in read_learned(champion).columns), strict=True))
    except (OSError, ValueError) as error:
        raise InputError(
            f"a champion's run folder must hold {INDEX}; that of {str(champion)!r} can't be read ({one_line(error)})"
        ) from error
    digests = train.digests
    images = zip(digests, (classes[label] for label in train.labels), strict=True)
    new = np.array([image not in learned for image in images], np.bool_)
    chosen = choose_shown(new, replay=replay, at_least=config.batch_size, seed=config.seed)
    line = f"{new.sum():,} new training images: "
    if chosen is None:
        return None, line + f"all {len(train):,} are shown"
    shown = {digests[number] for number in chosen}
    count = sum(digest in shown for digest in digests)  # with a drawn image come its copies
    return list(shown), line + f"{count:,} of {len(train):,} are shown (`retrain.replay`)"


def _frozen_digest(split: SplitModel | None) -> str | None:
    """What the part below the freeze line computes; None where all of the model learns."""
    return None if split is None else weights_digest(split.prefix, name=split.line)
