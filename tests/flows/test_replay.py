"""After a warm start phase 2 shows what is new to the champion, and some of what it has learned."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.contracts import TrainedModel
from pipelines.data.prepare import read_split
from pipelines.progress import Progress
from pipelines.run_folder import read_learned
from pipelines.slices import embed_slice
from pipelines.store.index import read_index, write_index
from pipelines.training import loop, phases
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.embed import embed
from pipelines.training.loop import BestWeights, PhaseData, PhaseRun
from pipelines.training.objective import balanced_class_weights
from pipelines.training.phases import fine_tune
from pipelines.training.state import read_shown
from pipelines.warm_start import choose_shown
from tasks.progress import Silent, listening
from tests.flows.champions import RECIPE, Champion, add_dogs
from tests.flows.conftest import Runs

pytestmark = pytest.mark.slow


def train_digests(run: Path) -> list[str]:
    return [row["sha256"] for row in read_index(run / "index.parquet") if row["split"] == "train"]


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


@pytest.mark.parametrize("stored", [True, False])
def test_an_interrupted_replay_goes_on_with_the_same_images(
    champion: Champion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 0)
    champion.forget(4)
    started = champion.start(replay=2)
    embedded = embed(champion.home, champion.prepared, config=embed_slice(RECIPE))
    learn = partial(
        fine_tune,
        champion.home,
        champion.prepared,
        started,
        embedded.activations if stored else None,
        config=dataclasses.replace(champion.config, batch_size=4),
        fine_tune=RECIPE.fine_tune.model_copy(update={"epochs": 3, "learning_rate": 0.01}),
    )
    checkpoints, steps = Checkpoints(tmp_path / "checkpoints", every_steps=2), 0

    def interrupt(progress: Progress) -> None:
        nonlocal steps
        steps += not progress.milestone
        if steps == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(checkpoints=checkpoints, report=interrupt)
    assert learn(checkpoints=checkpoints) == learn()


def test_classes_are_balanced_over_the_images_that_are_shown(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    champion.forget(3)
    started = champion.start(replay=2)
    assert isinstance(started, TrainedModel)
    shown = read_shown(champion.home, started)
    given: list[PhaseData] = []

    class Kept(PhaseRun):
        def __init__(self, learner: Any, model: Any, data: PhaseData, **options: Any) -> None:
            given.append(data)
            super().__init__(learner, model, data, **options)

    monkeypatch.setattr(phases, "PhaseRun", Kept)
    config = dataclasses.replace(champion.config, sampling="balanced", batch_size=3)
    settings = RECIPE.fine_tune.model_copy(update={"class_weights": "balanced"})
    fine_tune(champion.home, champion.prepared, started, config=config, fine_tune=settings)
    (data,) = given
    train = read_split(champion.home, champion.prepared, "train", only=shown)
    assert (np.bincount(train.labels) > 0).all()
    np.testing.assert_array_equal(data.class_weights, balanced_class_weights(train.labels, 2))
    assert data.class_weights[0] != data.class_weights[1]
    label_of = dict(zip(train.digests, train.labels, strict=True))
    epochs = 2  # of nine images in three batches: 18 turns
    drawn = [image["sha256"] for step in range(3 * epochs) for image in data.describe_batch(step)]
    assert set(drawn) == set(shown or ())
    assert np.bincount([label_of[digest] for digest in drawn]).tolist() == [9, 9]


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


def test_with_replay_a_run_says_how_much_is_new_and_shows_no_more_than_asked(copied: Runs, warm: tuple[Runs, Path]) -> None:
    heard: list[tuple[str, Progress]] = []

    class Milestones(Silent):
        def progressed(self, stage: str, progress: Progress) -> None:
            if progress.milestone:
                heard.append((stage, progress))

    add_dogs(copied, 12)
    learned = train_digests(warm[1])
    for number, path in enumerate(sorted(copied.source.glob("dog/new *.jpg"))):
        shutil.copy(path, path.with_name(f"copy {number}.jpg"))
    with listening(Milestones()):
        folder = copied.run(start=warm[1], retrain={"warm_start": True, "epochs": 1, "replay": 1})
    now = train_digests(folder)
    new = sum(digest not in learned for digest in now)
    assert 0 < new < len(learned)
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
    now = set(train_digests(folder))
    assert before < now
    assert learned == (now if better else before)
