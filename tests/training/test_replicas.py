"""Training on several devices is training on one, but for rounding: on two virtual CPU devices, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.recipes import parse_recipe
from pipelines.training.replicas import mirrored_on
from tests.sources.folders import write_classes

# TensorFlow's devices can be divided only before it has used them.
TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.training.test_replicas import train_all
train_all(*sys.argv[1:])
"""
STEPS, BATCH = 5, 8
TECHNIQUES: dict[str, tuple[dict[str, Any], str]] = {
    "adamw": (
        {"optimizer": "adamw", "clip_norm": 0.05, "ema": 0.9, "layer_decay": 0.7, "class_weights": "balanced"},
        "float32",
    ),
    "sgd": ({"optimizer": "sgd", "weight_decay": 0.01, "label_smoothing": 0.1}, "float32"),
    "float16": ({"optimizer": "adam", "clip_norm": 0.05}, "mixed_float16"),
}


def train(technique: str, devices: int, *, restart_at: int | None = None) -> dict[str, Any]:
    """A few steps of a small network; with `restart_at` its state then goes through a new trainer, as a checkpoint does."""
    import keras
    import tensorflow as tf

    from pipelines.config import FineTuneConfig
    from pipelines.training.phases import make_deterministic
    from pipelines.training.precision import layers_in
    from pipelines.training.trainer import Learner, Trainer

    settings, precision = TECHNIQUES[technique]
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(BATCH, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, BATCH)) for _ in range(STEPS)]
    spec = (tf.TensorSpec((None, 8, 8, 3), tf.float32), tf.TensorSpec((None,), tf.int64))

    def start() -> tuple[Any, Trainer]:
        make_deterministic(1)
        with layers_in(precision):  # type: ignore[arg-type]
            image = keras.Input((8, 8, 3))
            features = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(8, 3, name="conv")(image))
            features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
            model = keras.Model(image, keras.layers.Dense(3, name="logits", dtype="float32")(features))
        weights = np.asarray([0.5, 1.0, 2.0], np.float32) if "class_weights" in settings else None
        phase = FineTuneConfig(learning_rate=0.01, **settings)
        return model, Trainer(Learner(model), phase, element_spec=spec, class_weights=weights)

    with mirrored_on(devices):
        model, trainer = start()
        trainer.start_epoch()
        losses = []
        for number, (images, labels) in enumerate(batches):
            if number == restart_at:
                state = trainer.values()
                model, trainer = start()
                assert trainer.restore(state)
                assert trainer.steps_done == number
            losses.append(trainer.step(tf.constant(images), tf.constant(labels)))
        judged = tf.data.Dataset.from_tensor_slices(batches[0]).batch(3)
        with trainer.averaged_weights():
            validation = trainer.validate(judged, lambda: None)
        weights = [np.array(variable).tolist() for variable in model.weights]
        means = trainer.running_means()
    return {"losses": losses, "means": means, "validation": validation, "weights": weights}


def train_phases(home: Path, source: Path, devices: int) -> list[dict[str, Any]]:
    """Both phases on drawn photos; returns the history and, as one number each, the weights."""
    from pipelines.config import Recipe, StoreConfig
    from pipelines.data.prepare import prepare
    from pipelines.slices import ingest_slice, training_slice
    from pipelines.sources.ingest import ingest
    from pipelines.sources.scan import scan_source
    from pipelines.training.history import read_history
    from pipelines.training.phases import fine_tune, train_head
    from pipelines.training.state import rebuild
    from tests.small import small_lite0

    recipe = Recipe.model_validate(
        {
            "image_size": 32,
            "batch_size": 8,
            "model": {"weights": "none", "dropout": 0.0},  # drawn otherwise on several devices
            "resources": {"devices": devices},
            "head": {"epochs": 2},
            "fine_tune": {"epochs": 2, "layers": 5},
        }
    )
    index = ingest(home, source, scan_source(home, source), config=ingest_slice(recipe, dataset="d"))
    prepared = prepare(home, source, index, image_size=32, resize="crop", store=StoreConfig())
    with small_lite0():
        config = training_slice(recipe)
        head = train_head(home, prepared, config=config, head=recipe.head)
        tuned = fine_tune(home, prepared, head, config=config, fine_tune=recipe.fine_tune)
        sums = [
            float(np.abs(np.array(variable)).sum()) for variable in rebuild(home, prepared, tuned, model=recipe.model).weights
        ]
    rows = [{name: row[name] for name in ("loss", "accuracy", "val_loss")} for row in read_history(home, tuned)]
    return [*rows, {"weights": sums}]


def train_all(folder: str) -> None:
    """What two devices make of each technique, of one in two halves, and of both phases, as JSON."""
    place = Path(folder)
    made: dict[str, Any] = {technique: train(technique, 2) for technique in TECHNIQUES}
    made["restarted"] = train("adamw", 2, restart_at=3)
    made["phases"] = train_phases(place / "home", place / "photos", 2)
    (place / "made.json").write_text(json.dumps(made))


@pytest.fixture(scope="module")
def photos_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("two") / "photos", {"cat": 20, "dog": 20})


@pytest.fixture(scope="module")
def on_two(photos_of_two: Path) -> dict[str, Any]:
    folder = photos_of_two.parent
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads((folder / "made.json").read_text())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_two_devices_learn_what_one_does(technique: str, on_two: dict[str, Any]) -> None:
    one, two = train(technique, 1), on_two[technique]
    tolerance = 1e-3 if technique == "float16" else 1e-5
    for what in ("losses", "means", "validation"):
        np.testing.assert_allclose(two[what], one[what], rtol=tolerance, err_msg=what)
    for here, there in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(there, here, atol=tolerance)


@pytest.mark.slow
def test_both_phases_on_two_devices_end_where_one_does(photos_of_two: Path, on_two: dict[str, Any], tmp_path: Path) -> None:
    one = train_phases(tmp_path / "home", photos_of_two, 1)
    assert len(one) == 5
    for here, there in zip(one, on_two["phases"], strict=True):
        for name, value in here.items():
            np.testing.assert_allclose(there[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_resume_on_two_devices_is_exact(on_two: dict[str, Any]) -> None:
    assert on_two["restarted"] == on_two["adamw"]


def test_more_devices_than_there_are_are_refused() -> None:
    message = r"`resources.devices` must be at most what TensorFlow sees \(1 [CG]PU\); received 2"
    with pytest.raises(InputError, match=message), mirrored_on(2):
        pass


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"batch_size": 32, "resources": {"devices": 3}}, r"`batch_size` must be a multiple of `resources.devices` \(3\)"),
        ({"augment": {"where": "model"}, "resources": {"devices": 2}}, "`augment.where: model` can't be had with several"),
    ],
)
def test_what_can_not_be_shared_out_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_recipe(recipe)
