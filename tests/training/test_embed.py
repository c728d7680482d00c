"""The embed stage on drawn photos: what the network makes is stored, nothing is made twice, and training is the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipelines.augment.philox import DrawKey, image_ids
from pipelines.augment.policy import build_policy
from pipelines.config import FineTuneConfig, HeadConfig, Recipe, StoreConfig
from pipelines.contracts import Embedded, PreparedImages, StoredActivations
from pipelines.data.batches import build_view_dataset, steps_per_epoch
from pipelines.data.prepare import prepare, read_examples, read_split
from pipelines.errors import RunError
from pipelines.models.assemble import build_classifier, set_trainable_head, set_trainable_top
from pipelines.models.freeze_line import SplitModel, split_at_freeze_line
from pipelines.progress import Progress
from pipelines.slices import embed_slice, ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.activations import ViewReader
from pipelines.training import embed as embed_module
from pipelines.training.embed import embed
from pipelines.training.history import read_history
from pipelines.training.phases import fine_tune, train_head
from pipelines.training.state import rebuild
from tests.sources.folders import write_learnable, write_photo

pytestmark = pytest.mark.slow
BASE: dict[str, Any] = {"image_size": 32, "batch_size": 8, "cache": {"mode": "activations", "dtype": "float32"}}
CLASSES = 2


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**BASE, **changes})


class Place:
    """A home with prepared images."""

    def __init__(self, folder: Path, photos: int = 40) -> None:
        self.home, self.source = folder / "home", write_learnable(folder / "photos", photos)
        self.prepared = self.prepare()

    def prepare(self) -> PreparedImages:
        index = ingest(self.home, self.source, scan_source(self.home, self.source), config=ingest_slice(recipe(), dataset="d"))
        return prepare(self.home, self.source, index, image_size=32, resize="crop", store=StoreConfig())

    def embed(self, **changes: Any) -> tuple[Embedded, int]:
        """What is stored, and how many images the network was shown for it."""
        said: list[Progress] = []
        embedded = embed(self.home, self.prepared, config=embed_slice(recipe(**changes)), report=said.append)
        return embedded, max((each.done for each in said if not each.milestone), default=0)

    def count(self, split: str) -> int:
        return len(read_split(self.home, self.prepared, split))

    def read(self, stored: StoredActivations, split: str, view: int = 0) -> Any:
        """The stored activations of a split."""
        digests = read_split(self.home, self.prepared, split).table["sha256"]
        reader = ViewReader(self.home, stored, digests, views=view + 1)
        return reader.gather(np.arange(len(digests)), np.full(len(digests), view))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("embed"))


def split(phase: str) -> SplitModel:
    settings = recipe()
    classifier = build_classifier(settings.model, image_size=32, num_classes=CLASSES, seed=settings.seed)
    set_trainable_head(classifier) if phase == "head" else set_trainable_top(classifier, layers=20)
    parts = split_at_freeze_line(classifier)
    assert parts is not None
    return parts


def test_what_is_stored_is_what_the_frozen_part_makes_of_each_view(shared: Place) -> None:
    embedded, _ = shared.embed()
    assert embedded.features is not None
    assert embedded.activations is not None
    policy = build_policy(recipe().augment)
    for phase, stored in (("head", embedded.features), ("fine_tune", embedded.activations)):
        prefix = split(phase).prefix
        for name in ("train", "validation"):
            examples, reader = read_examples(shared.home, shared.prepared, name)
            pixels = reader.gather(np.arange(len(examples)))
            expected = prefix(pixels.astype(np.float32), training=False)
            np.testing.assert_allclose(shared.read(stored, name), expected, rtol=1e-4, atol=1e-4)
        examples, reader = read_examples(shared.home, shared.prepared, "train")
        changed = policy.augment(reader.gather(np.arange(len(examples))), DrawKey(0, 1, image_ids(examples.digests)))
        expected = np.asarray(prefix(changed.astype(np.float32), training=False))
        np.testing.assert_allclose(shared.read(stored, "train", view=1), expected, rtol=1e-4, atol=1e-4)
        assert np.abs(expected - shared.read(stored, "train")).max() > 0.1


def test_halves_are_the_default_and_are_near(shared: Place) -> None:
    whole, _ = shared.embed()
    halves, _ = shared.embed(cache={"mode": "activations"})
    assert halves.activations is not None
    assert whole.activations is not None
    received = shared.read(halves.activations, "train")
    assert received.dtype == np.float16
    np.testing.assert_allclose(received, shared.read(whole.activations, "train"), rtol=2e-3, atol=1e-3)


def test_only_what_was_never_seen_is_embedded(place: Place) -> None:
    train, validation = place.count("train"), place.count("validation")
    first, shown = place.embed()
    assert shown == 2 * train + validation
    for changes in (
        {},
        {"seed": 2},
        {"head": {"epochs": 7, "learning_rate": 0.1}},
        {"batch_size": 4},
        {"model": {"dropout": 0.1}},
    ):
        again, shown = place.embed(**changes)
        assert shown == 0
        assert again == first
    assert place.embed(cache={**BASE["cache"], "views": 3})[1] == train
    assert place.embed(augment={"rotation": 0.2})[1] == train  # the plain view is the same
    lower, shown = place.embed(fine_tune={"layers": "block6a"})
    assert shown == 2 * train + validation
    assert lower.features == first.features
    write_photo(place.source / "dark above" / "new.jpg", seed=7)
    place.prepared = place.prepare()
    now = {name: place.count(name) for name in ("train", "validation")}
    assert place.embed()[1] == 2 * (now["train"] - train) + now["validation"] - validation <= 2


@pytest.mark.parametrize("name", ["PREFIX_VERSION", "AUGMENT_VERSION"])
def test_what_other_code_made_is_made_again(shared: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shared.embed()
    monkeypatch.setattr(embed_module, name, 1000)
    train = shared.count("train")
    assert shared.embed()[1] == (train if name == "AUGMENT_VERSION" else 2 * train + shared.count("validation"))


def test_the_network_sees_batches_of_one_size_whatever_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels sum up in an order that depends on the size, and a run that was killed goes on with another remainder."""
    sizes = []

    def watched(part: keras.Model) -> Any:
        def run(images: Any, **options: Any) -> Any:
            sizes.append(images.shape[0])
            return part(images, **options)

        return run

    monkeypatch.setattr(embed_module, "fold_normalization", watched)
    embedded, shown = place.embed()
    assert shown % embed_module.EVALUATION_BATCH_SIZE
    assert set(sizes) == {embed_module.EVALUATION_BATCH_SIZE}
    assert embedded.features is not None
    assert np.abs(place.read(embedded.features, "train")[-1]).max() > 0


def test_equal_images_are_embedded_once(place: Place) -> None:
    copied = place.source / "dark above" / "000.png"
    (place.source / "dark above" / "again.png").write_bytes(copied.read_bytes())
    before = place.embed()[1]
    place.prepared = place.prepare()
    assert place.count("train") + place.count("validation") + place.count("test") == 81
    assert (before, place.embed()[1]) == (before, 0)


def test_embedding_that_was_interrupted_goes_on_where_it_was(place: Place) -> None:
    calls: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        calls.append(progress)
        if progress.done >= 32 and not progress.milestone:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(place.home, place.prepared, config=embed_slice(recipe()), report=interrupt)
    embedded, shown = place.embed()
    assert shown == 2 * place.count("train") + place.count("validation") - 32
    assert embedded == place.embed()[0]


def test_a_damaged_shard_is_made_again_and_said(place: Place) -> None:
    first, _ = place.embed()
    assert first.activations is not None
    view = first.activations.views[1]
    (name,) = view.shards
    shard = place.home / view.store / name
    before = shard.read_bytes()
    shard.write_bytes(before[:-100] + bytes(100))
    said: list[str] = []
    again = embed(place.home, place.prepared, config=embed_slice(recipe()), report=lambda each: said.append(each.detail))
    assert any(f"shard {name} of the activation store" in line and "is damaged" in line for line in said)
    assert again == first
    assert shard.read_bytes() == before


def test_what_half_precision_can_not_hold_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    append = embed_module._append
    monkeypatch.setattr(
        embed_module, "_append", lambda to, names, made, lacking: append(to, names, np.full_like(made, np.inf), lacking)
    )
    with pytest.raises(RunError, match=r"beyond the range of float16; set `cache.dtype` to float32"):
        place.embed(cache={"mode": "activations"})


def test_a_small_budget_leaves_features_or_nothing(shared: Place) -> None:
    rows = 2 * shared.count("train") + shared.count("validation")
    feature_bytes, gib = 1280 * 2, 2**30
    features, _ = shared.embed(cache={"budget_gib": 1.01 * rows * feature_bytes / gib})
    assert features.features is not None
    assert features.activations is None
    nothing, _ = shared.embed(cache={"budget_gib": 0.99 * rows * feature_bytes / gib})
    assert (nothing.features, nothing.activations) == (None, None)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, r"cache activations: \d+ rows of [x\d]+ at \w+, [.\d]+ MiB, as `cache.mode` says"),
        ({"cache": {}}, r"cache activations: .*, [.\d]+ MiB, saves .*, within `cache.budget_gib` \(20\)"),
        ({"cache": {}, "fine_tune": {"layers": "all"}}, r"cache features: .* MiB, saves .*; all layers learn in phase 2"),
        ({"cache": {"mode": "off"}}, "cache off: as `cache.mode` says"),
    ],
)
def test_what_is_stored_is_said_with_what_it_saves(shared: Place, changes: dict[str, Any], line: str) -> None:
    said: list[Progress] = []
    embed(shared.home, shared.prepared, config=embed_slice(recipe(**changes)), report=said.append)
    assert re.fullmatch(line, said[0].detail)
    assert said[0].milestone


def test_training_from_the_store_is_training_from_images(shared: Place) -> None:
    """Without augmentation: the same losses and weights, in both phases, with dropout and both phases' orders."""
    settings = recipe(augment={"where": "none"})
    config, embedded = training_slice(settings), shared.embed(augment={"where": "none"})[0]
    head, tune = HeadConfig(epochs=3, learning_rate=1e-2), FineTuneConfig(epochs=2, layers=20, learning_rate=1e-4)
    results = []
    for features, activations in ((embedded.features, embedded.activations), (None, None)):
        first = train_head(shared.home, shared.prepared, features, config=config, head=head)
        second = fine_tune(shared.home, shared.prepared, first, activations, config=config, fine_tune=tune)
        model = rebuild(shared.home, shared.prepared, second, model=settings.model)
        results.append((read_history(shared.home, second), model.get_weights()))
    (stored_rows, stored), (image_rows, images) = results
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [row[name] for row in stored_rows] == pytest.approx([row[name] for row in image_rows], rel=2e-3, abs=1e-5)
    for one, other in zip(stored, images, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)
    assert stored_rows[0]["loss"] != pytest.approx(stored_rows[-1]["loss"], rel=0.1)


def test_each_epoch_shows_each_image_once_and_each_view_in_its_turn(shared: Place) -> None:
    embedded, _ = shared.embed()
    assert embedded.features is not None
    examples = read_split(shared.home, shared.prepared, "train")
    ids = image_ids(examples.table["sha256"])
    reader = ViewReader(shared.home, embedded.features, examples.table["sha256"], views=2)
    rows = {view: shared.read(embedded.features, "train", view) for view in (0, 1)}
    steps = steps_per_epoch(len(examples), 8)
    numbered = np.arange(len(examples))
    dataset = build_view_dataset(reader, numbered, image_ids=ids, batch_size=8, seed=1).take(2 * steps)
    batches = list(dataset.as_numpy_iterator())
    seen: list[dict[int, int]] = [{}, {}]
    for step, (activations, chosen) in enumerate(batches):
        for row, example in zip(activations, chosen.tolist(), strict=True):
            (view,) = [view for view in (0, 1) if np.array_equal(row, rows[view][example])]
            seen[step // steps][example] = view
    for example in numbered.tolist():
        assert {seen[0][example], seen[1][example]} == {0, 1}
    assert 0 < sum(seen[0].values()) < len(numbered)
    (late,) = (
        build_view_dataset(reader, numbered, image_ids=ids, batch_size=8, seed=1, start_step=3).take(1).as_numpy_iterator()
    )
    np.testing.assert_array_equal(late[0], batches[3][0])


def test_stored_activations_of_another_line_are_refused(shared: Place) -> None:
    embedded, _ = shared.embed()
    config = training_slice(recipe())
    with pytest.raises(RunError, match="does not hold activations of this freeze line; remove that folder"):
        train_head(shared.home, shared.prepared, embedded.activations, config=config, head=HeadConfig(epochs=1))


def test_dropout_of_the_head_stays_and_of_the_frozen_part_goes() -> None:
    parts = split("head")
    assert [layer.rate for layer in parts.suffix.layers if isinstance(layer, keras.layers.Dropout)] == [0.3]
