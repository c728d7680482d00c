"""One phase: what is counted, when it ends, and what an interruption leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import PhaseConfig
from pipelines.data.batches import own_errors
from pipelines.errors import RunError
from pipelines.progress import Report, ignore_progress
from pipelines.store.artifacts import read_json
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.precision import layers_in
from pipelines.training.schedule import rate_at
from pipelines.training.trainer import Learner, Trainer

IMAGES = np.random.default_rng(1).normal(size=(20, 2, 2, 3)).astype(np.float32)
LABELS = (IMAGES.mean((1, 2, 3)) > 0).astype(np.int64)
BATCH, STEPS = 8, 3


def batches_from(images: Any, labels: Any) -> Any:
    return lambda step: tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH).repeat().skip(step % STEPS)


def build(classes: int = 2) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dropout(0.2, seed=2), keras.layers.Dense(classes)]
    return keras.Sequential(layers)


def phase(
    *,
    images: Any = IMAGES,
    labels: Any = LABELS,
    checkpoints: Checkpoints | None = None,
    report: Report = ignore_progress,
    model: keras.Model | None = None,
    **settings: Any,
) -> PhaseRun:
    validation = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(7)
    data = PhaseData(
        batches_from(images, labels),
        validation,
        steps_per_epoch=STEPS,
        images_per_epoch=len(images),
        describe_batch=lambda step: [{"path": f"of step {step}"}],
    )
    model = model or build()
    config = PhaseConfig.model_validate({"epochs": 3, "learning_rate": 1e-2, **settings})
    return PhaseRun(
        Learner(model), model, data, name="head", settings=config, best=BestWeights(), checkpoints=checkpoints, report=report
    )


def test_a_row_is_what_keras_would_have_counted() -> None:
    model, run = build(), phase(epochs=2)
    run.run()
    model.compile(
        keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    history = model.fit(
        batches_from(IMAGES, LABELS)(0),
        steps_per_epoch=STEPS,
        epochs=2,
        validation_data=tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(7),
        shuffle=False,
        verbose=0,
    ).history
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [row[name] for row in run.rows] == pytest.approx(history[name], rel=1e-5)
    assert [row["epoch"] for row in run.rows] == [1, 2]


def test_soft_labels_are_counted_by_their_likeliest_class() -> None:
    hard, soft = phase(), phase(labels=np.eye(2, dtype=np.float32)[LABELS])
    hard.run()
    soft.run()
    for name in ("loss", "accuracy", "val_loss"):
        assert [row[name] for row in soft.rows] == pytest.approx([row[name] for row in hard.rows], rel=1e-5)


def test_the_rate_of_each_step_is_the_schedule_s(monkeypatch: pytest.MonkeyPatch) -> None:
    used, original = [], Trainer.step

    def noting(trainer: Trainer, *batch: Any) -> float:
        used.append(trainer.learning_rate)
        return original(trainer, *batch)

    monkeypatch.setattr(Trainer, "step", noting)
    run = phase(schedule="cosine", warmup_epochs=1)
    run.run()
    assert used == pytest.approx([1e-2 * rate_at(step, run.settings, steps_per_epoch=STEPS) for step in range(9)])
    assert [row["learning_rate"] for row in run.rows] == used[2::3]


def test_a_plateau_in_the_warm_up_cuts_what_it_rises_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda *_: (1.0, 0.5))
    run = phase(epochs=4, warmup_epochs=3, plateau_patience=1, plateau_factor=0.5)
    run.run()
    assert [row["learning_rate"] for row in run.rows] == pytest.approx([1e-2 * 2 / 9, 1e-2 * 5 / 9, 5e-3 * 8 / 9, 2.5e-3])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_the_way_out(value: float) -> None:
    images = IMAGES.copy()
    images[BATCH] = value
    with pytest.raises(RunError, match=r"the loss became \w+ at step 2 of epoch 1 of phase `head`; lower `head.learning_rate`"):
        phase(images=images).run()


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_row_that_can_not_be_read_ends_the_run_in_our_words(part: str) -> None:
    def damaged(*_: Any) -> Any:
        raise RunError("shard\n1 is damaged (row 3); remove it and run again")

    def with_damage(dataset: Any) -> Any:
        def damage(images: Any, labels: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(damaged, [images], tf.float32), images.shape), labels

        return dataset.map(damage)

    run = phase()
    if part == "training":
        run._data = replace(run._data, batches=lambda step: with_damage(batches_from(IMAGES, LABELS)(step)))
    else:
        run._data = replace(run._data, validation=with_damage(run._data.validation))
    with pytest.raises(RunError, match=r"^shard\n1 is damaged \(row 3\); remove it and run again$"):
        run.run()


def test_other_errors_of_tensorflow_stay_as_they_are() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), own_errors():
        tf.reshape(tf.zeros([3]), [2])


@pytest.mark.parametrize(("precision", "told"), [("mixed_float16", True), ("mixed_bfloat16", False), ("float32", False)])
def test_in_float16_numbers_that_fit_are_a_way_out_too(precision: Any, told: bool) -> None:
    with layers_in(precision):
        model = build()
    with pytest.raises(RunError) as caught:
        phase(images=IMAGES * math.nan, model=model).run()
    assert ("or use `resources.precision: float32`" in str(caught.value)) is told


def test_a_validation_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda *_: (math.nan, 0.5))
    with pytest.raises(RunError, match="at the validation after epoch 1 of phase `head`"):
        phase(checkpoints=Checkpoints(tmp_path / "checkpoints", every_steps=1000)).run()
    (failure,) = (tmp_path / "checkpoints").iterdir()  # and no checkpoint
    assert [batch["step"] for batch in read_json(failure)["batches"]] == [1, 2]


def test_a_diverged_run_names_its_images_and_leaves_the_last_good_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    whole, images = phase(), IMAGES.copy()
    whole.run()
    images[BATCH] = math.nan  # in the second step
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1)
    with pytest.raises(RunError, match=r"the images of the last two steps are listed in .*failure\.json$") as caught:
        phase(images=images, checkpoints=checkpoints).run()
    failure = read_json(Path(str(caught.value).rpartition(" ")[2]))
    assert failure["batches"] == [{"step": step, "images": [{"path": f"of step {step}"}]} for step in (0, 1)]
    assert (failure["phase"], failure["what"]) == ("head", "the loss became nan at step 2 of epoch 1")
    saved = checkpoints.latest(say=pytest.fail)
    assert saved is not None
    assert saved.step == 1
    resumed = phase(checkpoints=checkpoints)  # the image is no longer damaged
    resumed.run()
    assert [row["loss"] for row in resumed.rows] == [row["loss"] for row in whole.rows]


def test_weights_that_are_no_numbers_end_the_run_at_their_step_though_the_loss_still_is_one(tmp_path: Path) -> None:
    """Max pooling and ReLU make numbers of NaN: the network below may be lost while the loss looks well."""
    layers = [keras.layers.Conv2D(2, 1), keras.layers.MaxPooling2D(2), keras.layers.ReLU(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((2, 2, 3)), *layers, keras.layers.Dense(2)])
    checkpoints, original = Checkpoints(tmp_path / "checkpoints", every_steps=1), Trainer._train_step

    def broken(trainer: Trainer, *batch: Any) -> Any:
        loss = original(trainer, *batch)
        kernel = model.layers[0].kernel
        kernel.assign(tf.where(trainer._steps_done.value >= 3, math.nan, kernel.value))
        return loss

    with pytest.MonkeyPatch.context() as patched, pytest.raises(RunError) as caught:
        patched.setattr(Trainer, "_train_step", broken)
        phase(model=model, checkpoints=checkpoints).run()
    assert str(caught.value).startswith(
        "weights became NaN or far too large at step 3 of epoch 1 of phase `head`; lower `head.learning_rate`; the images"
    )
    assert math.isfinite(float(tf.reduce_sum(model(IMAGES))))
    failure = read_json(checkpoints.folder / "failure.json")
    assert [batch["step"] for batch in failure["batches"]] == [1, 2]
    saved = checkpoints.latest(say=pytest.fail)
    assert saved is not None
    assert saved.step == 2


@pytest.mark.parametrize(("at", "where", "kept"), [(2, "step 2 of epoch 1", 1), (STEPS, "the end of epoch 1", 2)])
def test_an_optimizer_whose_numbers_are_none_is_not_saved(tmp_path: Path, at: int, where: str, kept: int) -> None:
    checkpoints, original = Checkpoints(tmp_path / "checkpoints", every_steps=1), Trainer.step

    def overflow(trainer: Trainer, *batch: Any) -> float:
        loss = original(trainer, *batch)
        if trainer.steps_done == at:  # it would break the weights in the next step
            moments = trainer.optimizer.variables[-1]
            moments.assign(tf.fill(moments.shape, math.inf))
        return loss

    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(RunError, match=f"the state of training became infinite or NaN by {where}"),
    ):
        patched.setattr(Trainer, "step", overflow)
        phase(checkpoints=checkpoints).run()
    saved = checkpoints.latest(say=pytest.fail)
    assert saved is not None
    assert saved.step == kept


def test_the_rate_is_cut_and_the_phase_ends_when_the_loss_no_longer_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.9, 0.95, 0.95, 0.95, 0.95])
    monkeypatch.setattr(Trainer, "validate", lambda *_: (next(losses), 0.5))
    run = phase(epochs=9, patience=3, plateau_patience=2, plateau_factor=0.5)
    run.run()
    assert [row["val_loss"] for row in run.rows] == [1.0, 0.9, 0.95, 0.95, 0.95]
    assert [row["learning_rate"] for row in run.rows] == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.005])
    assert (run.best.epoch, run.best.val_loss) == (2, 0.9)


def test_a_checkpoint_of_another_model_is_said_and_does_not_stand_in_the_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1)
    phase(checkpoints=checkpoints).run()
    told: list[str] = []
    run = phase(checkpoints=checkpoints, model=build(classes=3), epochs=1, report=lambda progress: told.append(progress.detail))
    run.run()
    assert len(run.rows) == 1
    assert told[0] == "its checkpoint is of another model and is removed; the phase starts anew"
    newest = checkpoints.latest(say=told.append)
    assert newest is not None
    assert newest.step == STEPS


def test_a_phase_whose_checkpoints_are_all_damaged_says_so_and_starts_anew(tmp_path: Path) -> None:
    whole, checkpoints = phase(), Checkpoints(tmp_path / "checkpoints", every_steps=1)
    whole.run()
    phase(checkpoints=checkpoints, epochs=1).run()
    for path in checkpoints.folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    told: list[str] = []
    run = phase(checkpoints=checkpoints, report=lambda progress: told.append(progress.detail))
    run.run()
    assert told[0].endswith("the one before it is tried")
    assert told[1].endswith("none is left, and the phase starts anew")
    assert "goes on" not in "".join(told)
    assert [row | {"seconds": 0} for row in run.rows] == [row | {"seconds": 0} for row in whole.rows]


def test_a_finished_phase_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1000)
    first = phase(checkpoints=checkpoints)
    first.run()
    monkeypatch.delattr(Trainer, "step")
    again = phase(checkpoints=checkpoints)
    again.run()
    assert again.rows == first.rows
