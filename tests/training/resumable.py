"""Work for processes of their own that are killed: small phases of training with checkpoints, and where they are to die.

Imported by a fork server, so that TensorFlow is imported once and each process is a fork that has not used it yet.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.config import FineTuneConfig, HeadConfig, PhaseConfig, Precision, Recipe
from pipelines.contracts import Embedded, PreparedImages, TrainedModel
from pipelines.progress import ignore_progress
from pipelines.slices import embed_slice, training_slice
from pipelines.store.artifacts import write_json
from pipelines.training import checkpoint
from pipelines.training import embed as embed_module
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.objective import balanced_class_weights
from pipelines.training.phases import fine_tune, make_deterministic, train_head
from pipelines.training.precision import layers_in
from pipelines.training.trainer import Learner, Trainer
from tests.small import small_lite0

TINY: dict[str, Any] = {"image_size": 32, "batch_size": 8, "model": {"weights": "none"}}
HEAD = HeadConfig(epochs=3, learning_rate=1e-2)
FINE_TUNE = FineTuneConfig(epochs=3, layers=20, learning_rate=1e-3)
# For phase 2 on stored activations: the upper half of the small network learns.
STORED: dict[str, Any] = {"cache": {"mode": "activations"}, "fine_tune": {"layers": "expand_16"}}
SCRATCH = PhaseConfig(epochs=4, learning_rate=1e-2, plateau_patience=1, patience=4)
# Between them every technique of a phase.
TECHNIQUES: dict[str, tuple[PhaseConfig, Precision]] = {
    "cosine, adamw": (
        SCRATCH.model_copy(
            update={
                "schedule": "cosine",
                "warmup_epochs": 0.5,
                "optimizer": "adamw",
                "weight_decay": 0.1,
                "clip_norm": 0.5,
                "ema": 0.8,
                "label_smoothing": 0.1,
                "class_weights": "balanced",
            }
        ),
        "float32",
    ),
    "one cycle, sgd, float16": (
        FineTuneConfig(
            epochs=4,
            learning_rate=0.1,
            schedule="one_cycle",
            optimizer="sgd",
            weight_decay=0.1,
            layer_decay=0.5,
            clip_norm=0.5,
            ema=0.8,
        ),
        "mixed_float16",
    ),
    # The rate is cut after the third epoch.
    "warm-up to a plateau, bfloat16": (
        SCRATCH.model_copy(update={"warmup_epochs": 1.3, "learning_rate": 0.1, "ema": 0.5}),
        "mixed_bfloat16",
    ),
}
EVERY_STEPS, STEPS_PER_EPOCH = 2, 5


@dataclass(frozen=True)
class Death:
    """When a process kills itself by SIGKILL: at the n-th time that it comes to a place, from 1.

    Attributes:
        place: `step` (done, and nobody knows yet), `half written` (a checkpoint's file), `written` (not renamed yet),
            `renamed` (older ones not removed yet), `validation`, `embedded` (a batch's features, or its activations).
            The three of a checkpoint come once in each write of one.
        count: n.
    """

    place: str
    count: int

    def arm(self) -> None:
        """Patches this process."""
        if self.place == "step":
            self._replace(Trainer, "step", before=False)
        elif self.place == "validation":
            self._replace(Trainer, "validate", before=True)
        elif self.place == "embedded":
            self._replace(embed_module, "_append", before=True)
        elif self.place == "half written":
            self._replace(checkpoint, "_write", before=False, prelude=_halve)
        elif self.place == "written":  # a write flushes the file, renames it and flushes the folder
            self._replace(checkpoint, "flush", before=True, counts=Path.is_file)
        elif self.place == "renamed":
            self._replace(checkpoint, "flush", before=False, counts=Path.is_dir)
        else:
            raise ValueError(self.place)

    def _replace(
        self,
        owner: Any,
        name: str,
        *,
        before: bool,
        counts: Callable[..., bool] = lambda *_: True,
        prelude: Callable[..., None] = lambda *_: None,
    ) -> None:
        """Makes a function deadly the n-th time that it is called with arguments that count: before its work, or after."""
        original, seen = getattr(owner, name), [0]

        def deadly(*arguments: Any) -> Any:
            if not counts(*arguments):
                return original(*arguments)
            seen[0] += 1
            result = None if before and seen[0] == self.count else original(*arguments)
            if seen[0] == self.count:
                prelude(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)


def _halve(path: Path, _: Any) -> None:
    os.truncate(path, path.stat().st_size // 2)


def run_phase(
    home: Path,
    prepared: PreparedImages,
    head: TrainedModel | None,
    folder: Path,
    changes: Mapping[str, Any],
    death: Death | None,
    embedded: Embedded | None = None,
) -> None:
    """Trains a head, or goes on from one, on a small network with checkpoints in `folder`; writes `trained.json` there.

    Both learn from images, or from what `embedded` says is stored.
    """
    _start(death)
    config = training_slice(Recipe.model_validate({**TINY, **changes}))
    checkpoints = Checkpoints(folder / "checkpoints", every_steps=EVERY_STEPS)
    features, activations, top = None, None, FINE_TUNE
    if embedded is not None:
        features, activations = embedded.features, embedded.activations
        top = FINE_TUNE.model_copy(update=STORED["fine_tune"])
    with small_lite0():
        if head is None:
            trained = train_head(home, prepared, features, config=config, head=HEAD, checkpoints=checkpoints)
        else:
            trained = fine_tune(home, prepared, head, activations, config=config, fine_tune=top, checkpoints=checkpoints)
    write_json(folder / "trained.json", trained.model_dump(mode="json"))


def run_embedding(home: Path, prepared: PreparedImages, changes: Mapping[str, Any], death: Death | None) -> None:
    """Embeds in batches of 8 that take half a minute each, as its clock says."""
    _start(death)
    embed_module.EVALUATION_BATCH_SIZE = 8
    embed_module.time = SimpleNamespace(monotonic=partial(next, count(0, 30)))
    with small_lite0():
        embed_module.embed(home, prepared, config=embed_slice(Recipe.model_validate({**TINY, **changes})))


def run_scratch(folder: Path, death: Death | None, settings: PhaseConfig = SCRATCH, precision: Precision = "float32") -> None:
    """Trains a network with random flips, BatchNorm that learns and dropout; writes its weights and its history."""
    _start(death)
    make_deterministic(3)
    images = np.random.default_rng(0).normal(size=(STEPS_PER_EPOCH * 8, 8, 8, 3)).astype(np.float32)
    labels = (images.mean((1, 2, 3)) > 0).astype(np.int64)
    layers = keras.layers
    with layers_in(precision):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.RandomFlip(seed=4),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.SpatialDropout2D(0.3, seed=5),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.5, seed=6),
                layers.Dense(2, dtype="float32"),
            ]
        )

    def batches(step: int) -> Any:
        dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8).repeat()
        return dataset.skip(step % STEPS_PER_EPOCH)

    validation = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    weights = balanced_class_weights(labels, 2) if settings.class_weights == "balanced" else None
    data = PhaseData(batches, validation, STEPS_PER_EPOCH, len(images), class_weights=weights)
    run = PhaseRun(
        Learner(model),
        model,
        data,
        name="head",
        settings=settings,
        best=BestWeights(),
        checkpoints=Checkpoints(folder / "checkpoints", every_steps=EVERY_STEPS),
        report=ignore_progress,
    )
    run.run()
    np.savez(folder / "weights.npz", *model.get_weights())
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in run.rows]
    write_json(folder / "rows.json", rows)


def _start(death: Death | None) -> None:
    tf.config.threading.set_inter_op_parallelism_threads(2)
    if death is not None:
        death.arm()
