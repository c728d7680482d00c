"""A warm start: which champions can be gone on from, and what is taken of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.data.prepare import prepare, read_split
from pipelines.inference import load_finished
from pipelines.progress import Progress
from pipelines.run_folder import read_learned
from pipelines.slices import TrainingConfig, embed_slice, ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.artifacts import write_json
from pipelines.store.index import read_index, write_index
from pipelines.training.embed import embed
from pipelines.training.history import read_history
from pipelines.training.loop import BestWeights
from pipelines.training.phases import fine_tune
from pipelines.training.state import read_shown, rebuild
from pipelines.warm_start import choose_shown, start_warm
from tasks.progress import Silent, listening
from tests.flows.conftest import TINY, Runs
from tests.small import small_lite0
from tests.sources.folders import write_photo

pytestmark = pytest.mark.slow
RECIPE = Recipe.model_validate(TINY)


@dataclass(frozen=True)
class Champion:
    """A run folder with the images that it was trained on, prepared again."""

    home: Path
    folder: Path
    prepared: PreparedImages
    config: TrainingConfig

    def start(
        self, activations: StoredActivations | None = None, *, replay: int | None = None, **changes: Any
    ) -> TrainedModel | str:
        settings = {"config": dataclasses.replace(self.config, **changes), "fine_tune": RECIPE.fine_tune, "replay": replay}
        return start_warm(self.home, self.prepared, self.folder, activations, **settings)

    def forget(self, count: int) -> list[str]:
        """Has its index say that it never saw the first training images; returns their digests."""
        rows = read_index(self.folder / "index.parquet")
        forgotten = [row["sha256"] for row in rows if row["split"] == "train"][:count]
        write_index(self.folder / "index.parquet", [row for row in rows if row["sha256"] not in forgotten])
        return forgotten


@pytest.fixture
def champion(warm: tuple[Runs, Path], tmp_path: Path) -> Iterator[Champion]:
    runs, home = warm[0], tmp_path / "home"
    shutil.copytree(runs.home, home)
    listing = scan_source(home, runs.source)
    index = ingest(home, runs.source, listing, config=ingest_slice(RECIPE, dataset="photos"))
    prepared = prepare(home, runs.source, index, image_size=32, resize="crop", store=StoreConfig())
    folder = Path(shutil.copytree(warm[1], tmp_path / "champion"))
    with small_lite0():
        yield Champion(home, folder, prepared, training_slice(RECIPE))


def change_classes(folder: Path) -> None:
    manifest = folder / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text()), "classes": ["cat", "fox"]})


def add_dogs(runs: Runs, count: int) -> None:
    for number in range(count):
        write_photo(runs.source / "dog" / f"new {number}.jpg", seed=9_000 + number)


def test_it_is_the_champion_with_its_figures_on_the_current_images(champion: Champion) -> None:
    started = champion.start()
    assert isinstance(started, TrainedModel)
    assert (started.phase, started.epoch) == ("champion", 0)
    best = max(
        pq.read_table(champion.folder / "history.parquet").to_pylist(), key=lambda row: (row["val_accuracy"], -row["val_loss"])
    )
    assert started.val_accuracy == pytest.approx(best["val_accuracy"])
    assert started.val_loss == pytest.approx(best["val_loss"], rel=1e-4)
    ours = rebuild(champion.home, champion.prepared, started, model=RECIPE.model)
    theirs = load_finished(champion.folder).model
    for mine, its in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert champion.start() == started  # so that the stages after it are hits


def test_its_figures_are_those_that_phase_2_would_find_of_the_same_weights(champion: Champion) -> None:
    still = RECIPE.fine_tune.model_copy(update={"learning_rate": 1e-30})
    losses = {}
    for name, activations in (
        ("pixels", None),
        ("activations", embed(champion.home, champion.prepared, config=embed_slice(RECIPE)).activations),
    ):
        started = champion.start(activations)
        assert isinstance(started, TrainedModel)
        losses[name] = started.val_loss
        trained = fine_tune(champion.home, champion.prepared, started, activations, config=champion.config, fine_tune=still)
        (row,) = read_history(champion.home, trained)
        assert row["val_loss"] == pytest.approx(started.val_loss, rel=1e-5)
        assert row["val_accuracy"] == pytest.approx(started.val_accuracy)
    assert losses["pixels"] != losses["activations"]  # float16


def test_phase_2_shows_what_is_new_to_the_champion_and_so_many_images_that_it_knows(champion: Champion) -> None:
    new = champion.forget(3)
    started, again = champion.start(replay=2), champion.start(replay=2)
    assert isinstance(started, TrainedModel)
    assert started == again
    shown = read_shown(champion.home, started)
    assert shown is not None
    assert len(set(shown)) == 3 * (1 + 2)
    assert set(new) < set(shown) < set(read_split(champion.home, champion.prepared, "train").digests)
    heard: list[Progress] = []
    settings = RECIPE.fine_tune.model_copy(update={"epochs": 2})
    for activations in (None, embed(champion.home, champion.prepared, config=embed_slice(RECIPE)).activations):
        heard.clear()
        inputs = {"config": champion.config, "fine_tune": settings, "report": heard.append}
        fine_tune(champion.home, champion.prepared, started, activations, **inputs)
        assert {progress.total for progress in heard} == {2 * 9}


def test_an_image_with_another_label_is_new(champion: Champion) -> None:
    rows = read_index(champion.folder / "index.parquet")
    changed = next(row for row in rows if row["split"] == "train")
    changed["label"] = "dog" if changed["label"] == "cat" else "cat"
    write_index(champion.folder / "index.parquet", rows)
    started = champion.start(replay=9)
    assert isinstance(started, TrainedModel)
    shown = read_shown(champion.home, started)
    assert shown is not None
    assert len(shown) == 10
    assert changed["sha256"] in shown


@pytest.mark.parametrize(
    ("added", "known", "replay", "shown"),
    [
        (10, 90, 3, 40),
        (10, 90, 0, 10),
        (1, 99, 3, 8),  # a full batch
        (1, 5, 0, None),  # there is no full batch
        (10, 30, 3, None),
        (0, 100, 3, None),
    ],
)
def test_as_many_images_are_shown_as_replay_says(added: int, known: int, replay: int, shown: int | None) -> None:
    new = np.random.default_rng(added).permutation(np.arange(added + known) < added)
    chosen = choose_shown(new, replay=replay, at_least=8, seed=1)
    if shown is None:
        assert chosen is None
        return
    assert chosen is not None
    assert len(np.unique(chosen)) == len(chosen) == shown
    assert new[chosen].sum() == added
    other = choose_shown(new, replay=replay, at_least=8, seed=2)
    assert (other is not None and (other != chosen).any()) == (replay > 0 or added < 8)


def test_other_classes_another_network_or_other_frozen_layers_are_said(champion: Champion) -> None:
    config = champion.config
    assert "another network" in str(champion.start(model=config.model.model_copy(update={"hidden_units": 3})))
    other = Recipe.model_validate({"model": {"backbone": "SmallCNN"}}).model
    assert "another network" in str(champion.start(model=other))
    # Random frozen layers stand for pretrained ones of another file.
    assert "below `fine_tune.layers`" in str(champion.start(seed=2))
    change_classes(champion.folder)
    assert "classes" in str(champion.start())


def test_only_phase_2_is_new_work(copied: Runs, warm: tuple[Runs, Path]) -> None:
    folder = copied.run(start=warm[1], retrain={"epochs": 2})
    stages = json.loads((folder / "timings.json").read_text())["stages"]
    cache = {name: stage["cache"] for name, stage in stages.items() if name != "scan"}
    assert cache.pop("fine_tune") == "miss"
    assert "head" not in cache
    assert [cache[name] for name in ("ingest", "prepare", "embed")] == ["hit"] * 3
    history = pq.read_table(folder / "history.parquet").to_pylist()
    assert [(row["phase"], row["epoch"]) for row in history] == [("fine_tune", 1), ("fine_tune", 2)]
    assert (folder / "seen.parquet").exists()


def test_with_replay_a_run_says_how_much_is_new_and_shows_no_more_than_asked(copied: Runs, warm: tuple[Runs, Path]) -> None:
    heard: list[tuple[str, Progress]] = []

    class Milestones(Silent):
        def progressed(self, stage: str, progress: Progress) -> None:
            if progress.milestone:
                heard.append((stage, progress))

    add_dogs(copied, 12)
    with listening(Milestones()):
        folder = copied.run(start=warm[1], retrain={"warm_start": True, "epochs": 1, "replay": 1})
    before, now = (
        {row["sha256"] for row in read_index(run / "index.parquet") if row["split"] == "train"} for run in (warm[1], folder)
    )
    new = len(now - before)
    assert 0 < new < len(before)
    (line,) = (progress.detail for stage, progress in heard if stage == "warm_start")
    assert line == f"{new} new training images: {2 * new} of {len(now)} are shown (`retrain.replay`)"
    assert [progress.total for stage, progress in heard if stage == "fine_tune"] == [2 * new]


@pytest.mark.parametrize("better", [True, False])
def test_only_what_the_weights_learned_is_known_to_the_next_retraining(
    copied: Runs, warm: tuple[Runs, Path], monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    monkeypatch.setattr(BestWeights, "is_beaten_by", lambda *_, **__: better)
    add_dogs(copied, 12)
    folder = copied.run(start=warm[1], retrain={"epochs": 1})
    before, learned = (set(read_learned(run)["sha256"].to_pylist()) for run in (warm[1], folder))
    now = {row["sha256"] for row in read_index(folder / "index.parquet") if row["split"] == "train"}
    assert before < now
    assert learned == (now if better else before)


def test_a_champion_that_does_not_fit_is_left_aside_which_is_said(
    copied: Runs, warm: tuple[Runs, Path], tmp_path: Path
) -> None:
    class Notes(Silent):
        lines: ClassVar[list[str]] = []

        def noted(self, line: str) -> None:
            self.lines.append(line)

    other = Path(shutil.copytree(warm[1], tmp_path / "other"))
    change_classes(other)
    with listening(Notes()):
        folder = copied.run(start=other)
    (line,) = Notes.lines
    assert line.startswith("no warm start from the champion: it knows 2 classes, and not just those of the data")
    stages = json.loads((folder / "timings.json").read_text())["stages"]
    assert {stage["cache"] for name, stage in stages.items() if name != "scan"} == {"hit"}
    assert "head" in stages
    assert not (folder / "seen.parquet").exists()


def test_without_phase_2_there_is_nothing_to_start(copied: Runs, warm: tuple[Runs, Path]) -> None:
    folder = copied.run(start=warm[1], fine_tune={"epochs": 0})
    assert [row["phase"] for row in pq.read_table(folder / "history.parquet").to_pylist()] == ["head"]
