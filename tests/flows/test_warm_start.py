"""A warm start: which champions can be gone on from, and what is taken of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.config import Recipe
from pipelines.contracts import TrainedModel
from pipelines.inference import load_finished
from pipelines.slices import embed_slice
from pipelines.store.artifacts import write_json
from pipelines.training.embed import embed
from pipelines.training.history import read_history
from pipelines.training.phases import fine_tune
from pipelines.training.state import rebuild
from tasks.progress import Silent, listening
from tests.flows.champions import RECIPE, Champion
from tests.flows.conftest import Runs

pytestmark = pytest.mark.slow


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
