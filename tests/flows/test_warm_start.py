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
from pipelines.contracts import PreparedImages, TrainedModel
from pipelines.data.prepare import prepare
from pipelines.inference import load_finished
from pipelines.slices import TrainingConfig, ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.artifacts import write_json
from pipelines.training.state import rebuild
from pipelines.warm_start import start_warm
from tasks.progress import Silent, listening
from tests.flows.conftest import TINY, Runs
from tests.small import small_lite0

pytestmark = pytest.mark.slow
RECIPE = Recipe.model_validate(TINY)


@dataclass(frozen=True)
class Champion:
    """A run folder with the images that it was trained on, prepared again."""

    home: Path
    folder: Path
    prepared: PreparedImages
    config: TrainingConfig

    def start(self, **changes: Any) -> TrainedModel | str:
        config = dataclasses.replace(self.config, **changes)
        return start_warm(self.home, self.prepared, self.folder, config=config, fine_tune=RECIPE.fine_tune)


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
