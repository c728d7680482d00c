"""The two phases on drawn photos: what is kept, what moves, and that the same inputs give the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipelines.config import FineTuneConfig, HeadConfig, Recipe, StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages, TrainedModel
from pipelines.data.prepare import prepare, read_examples
from pipelines.errors import InputError, RunError
from pipelines.models.assemble import backbone_of, build_classifier, walk_layers
from pipelines.slices import ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.artifacts import read_json
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.history import read_history
from pipelines.training.loop import BestWeights
from pipelines.training.phases import fine_tune, train_head
from pipelines.training.state import load_weights, rebuild
from pipelines.training.trainer import Trainer
from tests.small import small_lite0
from tests.sources.folders import write_learnable

pytestmark = pytest.mark.slow
RECIPE = Recipe.model_validate({"image_size": 32, "batch_size": 8, "model": {"weights": "imagenet"}})
HEAD = HeadConfig(epochs=5, learning_rate=1e-2, patience=5)


class Trained:
    """A home with prepared images and a trained head."""

    def __init__(self, home: Path, source: Path) -> None:
        self.home = home
        listing = scan_source(home, source)
        index: ImageIndex = ingest(home, source, listing, config=ingest_slice(RECIPE, dataset="d"))
        self.prepared: PreparedImages = prepare(home, source, index, image_size=32, resize="stretch", store=StoreConfig())
        self.head = self.train_head(HEAD)

    def train_head(self, head: HeadConfig, **changes: Any) -> TrainedModel:
        recipe = Recipe.model_validate({**RECIPE.model_dump(), **changes})
        return train_head(self.home, self.prepared, config=training_slice(recipe), head=head)

    def fine_tune(self, settings: FineTuneConfig, head: TrainedModel | None = None) -> TrainedModel:
        config = training_slice(RECIPE)
        return fine_tune(self.home, self.prepared, head or self.head, config=config, fine_tune=settings)

    def weights(self, trained: TrainedModel) -> dict[str, Any]:
        model = rebuild(self.home, self.prepared, trained, model=RECIPE.model)
        return {weight.path: np.asarray(weight) for weight in model.weights}

    def validation_figures(self, trained: TrainedModel) -> tuple[float, float]:
        """Accuracy and loss on validation, worked out from the stored weights alone."""
        examples, reader = read_examples(self.home, self.prepared, "validation")
        logits = rebuild(self.home, self.prepared, trained, model=RECIPE.model)(reader.gather(np.arange(len(examples))))
        losses = keras.losses.sparse_categorical_crossentropy(examples.labels, logits, from_logits=True)
        return float(np.mean(np.argmax(logits, axis=1) == examples.labels)), float(np.mean(losses))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("phases")
    return Trained(folder / "home", write_learnable(folder / "photos", 60))


@pytest.fixture(scope="module")
def small_trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("small")
    with small_lite0():
        return Trained(folder / "home", write_learnable(folder / "photos", 20))


@pytest.fixture
def small(small_trained: Trained) -> Iterator[Trained]:
    """On a network of few layers, for what does not depend on the network."""
    with small_lite0():
        yield small_trained


@pytest.fixture(scope="module")
def unequal_trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("unequal")
    source = write_learnable(folder / "photos", 20)
    for photo in sorted((source / "dark above").iterdir())[8:]:
        photo.unlink()
    with small_lite0():
        return Trained(folder / "home", source)


@pytest.fixture
def unequal(unequal_trained: Trained) -> Iterator[Trained]:
    """Two classes of 8 and 20 photos, on a network of few layers."""
    with small_lite0():
        yield unequal_trained


def test_the_kept_figures_are_those_of_the_kept_weights(trained: Trained) -> None:
    tuned = trained.fine_tune(FineTuneConfig(epochs=2, layers=20))
    for model in (trained.head, tuned):
        accuracy, loss = trained.validation_figures(model)
        assert model.val_accuracy == pytest.approx(accuracy)
        assert model.val_loss == pytest.approx(loss, rel=1e-3)
    history = read_history(trained.home, tuned)
    assert [row["phase"] for row in history] == ["head"] * 5 + ["fine_tune"] * 2
    best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert (tuned.val_accuracy, tuned.phase, tuned.epoch) == (best["val_accuracy"], best["phase"], best["epoch"])


def test_mixed_images_train_too_and_validation_is_measured_as_ever(small: Trained) -> None:
    mixed = small.train_head(HeadConfig(epochs=2, learning_rate=1e-2), augment={"mixup": 0.2, "cutmix": 1.0})
    accuracy, loss = small.validation_figures(mixed)
    assert mixed.val_accuracy == pytest.approx(accuracy)
    assert mixed.val_loss == pytest.approx(loss, rel=1e-3)
    assert mixed.artifact.digest != small.train_head(HeadConfig(epochs=2, learning_rate=1e-2)).artifact.digest


def test_phase_2_can_not_make_the_result_worse(trained: Trained) -> None:
    ruined = trained.fine_tune(FineTuneConfig(epochs=2, layers=20, learning_rate=0.5))
    last = read_history(trained.home, ruined)[-1]
    assert (last["val_accuracy"], -last["val_loss"]) < (trained.head.val_accuracy, -trained.head.val_loss)  # it did harm
    assert ruined.phase == "head"
    kept, before = trained.weights(ruined), trained.weights(trained.head)
    assert all(np.array_equal(kept[name], before[name]) for name in before)


def test_each_phase_moves_what_it_may_and_no_batch_normalization(trained: Trained) -> None:
    weak = trained.train_head(HeadConfig(epochs=1, learning_rate=1e-6))
    tuned = trained.fine_tune(FineTuneConfig(epochs=3, layers=20, learning_rate=1e-3), weak)
    assert tuned.phase == "fine_tune", "this test needs an epoch that beat the head"
    model = rebuild(trained.home, trained.prepared, tuned, model=RECIPE.model)
    normalizations = {
        weight.path
        for layer in walk_layers(backbone_of(model))
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    top = {weight.path for layer in backbone_of(model).layers[-20:] for weight in layer.weights}
    head, after = trained.weights(weak), trained.weights(tuned)
    moved = {name for name in head if not np.array_equal(head[name], after[name])}
    outside = {weight.path for weight in model.weights} - {weight.path for weight in backbone_of(model).weights}
    assert len(normalizations) > 100
    assert not moved & normalizations
    assert moved == (top - normalizations) | outside


def test_augmentation_layers_in_the_model_train_and_are_gone_afterwards(small: Trained) -> None:
    where = {"where": "model", "brightness": 0.5, "erasing": 1.0}
    settings = HeadConfig(epochs=1, learning_rate=1e-2)
    inside, again = (small.train_head(settings, augment=where) for _ in range(2))
    plain = small.train_head(settings, augment={"where": "none"})
    assert inside.artifact.digest == again.artifact.digest != plain.artifact.digest
    (row,), (plain_row,) = (read_history(small.home, model) for model in (inside, plain))
    assert row["loss"] != plain_row["loss"]
    assert small.weights(inside).keys() == small.weights(plain).keys()  # the classifier's, no others
    accuracy, loss = small.validation_figures(inside)
    assert (inside.val_accuracy, inside.val_loss) == (pytest.approx(accuracy), pytest.approx(loss, rel=1e-3))


def test_a_from_scratch_model_learns_whole_without_a_head_phase(trained: Trained) -> None:
    recipe = Recipe.model_validate(
        {"batch_size": 8, "model": {"backbone": "SmallCNN", "blocks": {"widths": [8, 8], "depths": [1, 1]}}}
    )
    settings = FineTuneConfig(epochs=4, layers="all", learning_rate=1e-2, patience=4)

    def train() -> TrainedModel:
        return fine_tune(trained.home, trained.prepared, None, config=training_slice(recipe), fine_tune=settings)

    tuned = train()
    assert [row["phase"] for row in read_history(trained.home, tuned)] == ["fine_tune"] * 4
    assert (tuned.phase, tuned.val_accuracy > 0.7) == ("fine_tune", True)
    model = rebuild(trained.home, trained.prepared, tuned, model=recipe.model)
    first = build_classifier(recipe.model, image_size=32, num_classes=2, seed=recipe.seed)
    for learned, before in zip(model.weights, first.weights, strict=True):
        assert not np.array_equal(learned, before), learned.path  # the statistics of BatchNormalization too
    assert train().artifact.digest == tuned.artifact.digest


def test_a_run_that_diverges_names_its_images(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "step", _fail)
    recipe = Recipe.model_validate({**RECIPE.model_dump(), "augment": {"mixup": 0.2}})
    checkpoints = Checkpoints(tmp_path, every_steps=1)
    with pytest.raises(RunError, match=r"the loss became nan .* are listed in .*failure\.json$"):
        train_head(trained.home, trained.prepared, config=training_slice(recipe), head=HEAD, checkpoints=checkpoints)
    (batch,) = read_json(tmp_path / "failure.json")["batches"]
    examples, _ = read_examples(trained.home, trained.prepared, "train")
    files = set(zip(examples.paths, examples.digests, strict=True))
    assert batch["step"] == 0
    assert len(batch["images"]) == RECIPE.batch_size
    for image in batch["images"]:
        assert {(image["path"], image["sha256"]), (image["mixed_with"]["path"], image["mixed_with"]["sha256"])} <= files


def _fail(trainer: Trainer, *_: Any) -> float:
    trainer._steps_done.assign_add(1)
    return math.nan


def test_both_phases_take_every_technique(trained: Trained) -> None:
    techniques = {"epochs": 2, "schedule": "cosine", "warmup_epochs": 0.5, "optimizer": "adamw", "clip_norm": 1.0, "ema": 0.5}
    techniques |= {"label_smoothing": 0.1, "class_weights": "balanced"}
    recipe = Recipe.model_validate(
        {
            **RECIPE.model_dump(),
            "resources": {"precision": "mixed_bfloat16"},
            "head": {**techniques, "learning_rate": 1e-2},
            "fine_tune": {**techniques, "layer_decay": 0.9, "learning_rate": 1e-3},
        }
    )
    config = training_slice(recipe)
    head = train_head(trained.home, trained.prepared, config=config, head=recipe.head)
    tuned = fine_tune(trained.home, trained.prepared, head, config=config, fine_tune=recipe.fine_tune)
    assert len(read_history(trained.home, tuned)) == 4
    for model in (head, tuned):
        accuracy, loss = trained.validation_figures(model)  # in float32
        assert model.val_accuracy == pytest.approx(accuracy, abs=0.2)
        assert model.val_loss == pytest.approx(loss, abs=0.05)
    served = rebuild(trained.home, trained.prepared, tuned, model=RECIPE.model)
    assert {layer.compute_dtype for layer in walk_layers(served)} == {"float32"}


@pytest.mark.parametrize("phase", ["head", "fine_tune"])
def test_rare_classes_weigh_more_where_the_recipe_says_so(unequal: Trained, phase: str) -> None:
    balanced, plain = {"class_weights": "balanced"}, {"class_weights": "none"}

    def train(weighed: dict[str, Any]) -> TrainedModel:
        if phase == "head":
            return unequal.train_head(HeadConfig.model_validate({"epochs": 1, "learning_rate": 1e-2, **weighed}))
        return unequal.fine_tune(FineTuneConfig.model_validate({"epochs": 1, "layers": 5, **weighed}))

    weighed, again, same = train(balanced), train(balanced), train(plain)
    assert weighed.artifact.digest == again.artifact.digest != same.artifact.digest
    losses = [read_history(unequal.home, model)[-1]["loss"] for model in (weighed, same)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("phase", ["head", "fine_tune"])
def test_mixed_precision_reaches_the_layers(small: Trained, phase: str) -> None:
    def train(precision: str) -> TrainedModel:
        config = training_slice(Recipe.model_validate({**RECIPE.model_dump(), "resources": {"precision": precision}}))
        if phase == "head":
            return train_head(small.home, small.prepared, config=config, head=HeadConfig(epochs=1, learning_rate=1e-2))
        settings = FineTuneConfig(epochs=1, layers=5)
        return fine_tune(small.home, small.prepared, small.head, config=config, fine_tune=settings)

    whole, halves = train("float32"), train("mixed_bfloat16")
    losses = [read_history(small.home, model)[-1]["loss"] for model in (whole, halves)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert whole.artifact.digest != halves.artifact.digest


def test_no_epochs_of_phase_2_leave_the_head_s_result(trained: Trained) -> None:
    tuned = trained.fine_tune(FineTuneConfig(epochs=0))
    assert tuned.model_copy(update={"artifact": trained.head.artifact}) == trained.head


def test_the_same_inputs_give_the_same_artifact_and_another_seed_another(small: Trained) -> None:
    assert small.train_head(HEAD).artifact.digest == small.head.artifact.digest
    assert small.train_head(HEAD, seed=2).artifact.digest != small.head.artifact.digest


def test_a_batch_larger_than_the_training_split_is_refused(small: Trained) -> None:
    with pytest.raises(InputError, match=r"`batch_size` .* larger than the training split of \d+ images; received 256"):
        small.train_head(HeadConfig(epochs=1), batch_size=256)


def test_weights_of_another_architecture_are_refused(trained: Trained) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(RunError, match="are not those of this architecture"):
        load_weights(trained.home, trained.head, other)


@pytest.mark.parametrize(
    ("accuracy", "loss", "beaten"),
    [(0.9, 9.0, True), (0.8, 0.4, True), (0.8, 0.5, False), (0.7, 0.1, False), (math.nan, 0.1, False)],
)
def test_accuracy_decides_and_loss_among_equals(accuracy: float, loss: float, beaten: bool) -> None:
    best = BestWeights(phase="head", epoch=1, val_accuracy=0.8, val_loss=0.5)
    assert best.is_beaten_by(val_accuracy=accuracy, val_loss=loss) is beaten
