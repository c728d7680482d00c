"""kill -9 at any moment, then the same again: the end is the same to the bit."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import Embedded, PreparedImages, TrainedModel
from pipelines.data.prepare import prepare, read_split
from pipelines.progress import Progress
from pipelines.slices import embed_slice, ingest_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.artifacts import file_digest, read_json
from pipelines.training.cache_choice import count_views
from pipelines.training.checkpoint import _UNFINISHED, KEPT
from pipelines.training.embed import embed
from tests.small import small_lite0
from tests.sources.folders import write_learnable
from tests.training import resumable
from tests.training.resumable import EVERY_STEPS, HEAD, SCRATCH, STEPS_PER_EPOCH, STORED, TECHNIQUES, TINY, Death

pytestmark = pytest.mark.slow
TOTAL_STEPS = SCRATCH.epochs * STEPS_PER_EPOCH
PHASE_STEPS = 12  # of the real phases
RANDOM_STEPS = sorted(random.Random(7).sample(range(1, TOTAL_STEPS + 1), 4))
IN_A_WRITE = [Death(place, count) for place in ("half written", "written", "renamed") for count in (1, 6)]


class Processes:
    """Runs work in forks of a server that has imported TensorFlow and never used it."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.training.resumable"])

    def run(self, work: Callable[..., None], *arguments: Any) -> int | None:
        """The exit status, negative for a signal."""
        process = self._context.Process(target=work, args=arguments)
        process.start()
        process.join()
        return process.exitcode


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="module")
def undisturbed(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert processes.run(resumable.run_scratch, folder, None) == 0
    return folder


def assert_same(folder: Path, other: Path) -> None:
    assert read_json(folder / "rows.json") == read_json(other / "rows.json")
    with np.load(folder / "weights.npz") as mine, np.load(other / "weights.npz") as others:
        assert len(mine.files) == len(others.files) > 0
        assert all(np.array_equal(mine[name], others[name]) for name in mine.files)


@pytest.mark.parametrize(
    "death", [*(Death("step", step) for step in RANDOM_STEPS), *IN_A_WRITE, Death("validation", 2)], ids=str
)
def test_a_killed_run_ends_as_an_undisturbed_one(death: Death, processes: Processes, undisturbed: Path, tmp_path: Path) -> None:
    assert processes.run(resumable.run_scratch, tmp_path, death) == -signal.SIGKILL
    assert not (tmp_path / "rows.json").exists()
    if death in IN_A_WRITE:
        assert_died_in_write(death, tmp_path / "checkpoints")
    assert processes.run(resumable.run_scratch, tmp_path, None) == 0
    assert_same(tmp_path, undisturbed)


def assert_died_in_write(death: Death, checkpoints: Path) -> None:
    """Of the n-th write there is what its place says, and nothing more."""
    whole = [path for path in checkpoints.iterdir() if path.name != _UNFINISHED]
    before = min(death.count - 1, KEPT)
    assert len(whole) == (before + 1 if death.place == "renamed" else before)
    assert (checkpoints / _UNFINISHED).exists() == (death.place != "renamed")
    assert all(path.stem.partition("-")[2] == file_digest(path) for path in whole)
    if death.place != "renamed":
        assert zipfile.is_zipfile(checkpoints / _UNFINISHED) == (death.place == "written")


@pytest.mark.parametrize("name", TECHNIQUES)
def test_each_technique_ends_as_undisturbed(name: str, processes: Processes, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert processes.run(resumable.run_scratch, whole, None, *TECHNIQUES[name]) == 0
    for death in (Death("step", 3), Death("step", 5), Death("validation", 2), Death("step", 3)):  # in epochs 1, 2, 3 and 4
        assert processes.run(resumable.run_scratch, killed, death, *TECHNIQUES[name]) == -signal.SIGKILL
    assert processes.run(resumable.run_scratch, killed, None, *TECHNIQUES[name]) == 0
    assert_same(killed, whole)
    assert len(read_json(whole / "rows.json")) == 4


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(
    processes: Processes, undisturbed: Path, tmp_path: Path
) -> None:
    deaths = 0
    while processes.run(resumable.run_scratch, tmp_path, Death("step", EVERY_STEPS + 1)) == -signal.SIGKILL:
        deaths += 1
        assert deaths <= TOTAL_STEPS, "it makes no headway"
    assert deaths > SCRATCH.epochs
    assert_same(tmp_path, undisturbed)


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(processes: Processes, undisturbed: Path, tmp_path: Path) -> None:
    assert processes.run(resumable.run_scratch, tmp_path, Death("step", 12)) == -signal.SIGKILL
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    assert processes.run(resumable.run_scratch, tmp_path, None) == 0
    assert_same(tmp_path, undisturbed)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedImages]:
    folder, recipe = tmp_path_factory.mktemp("resume"), Recipe.model_validate(TINY)
    home, source = folder / "home", write_learnable(folder / "photos", 20)
    index = ingest(home, source, scan_source(home, source), config=ingest_slice(recipe, dataset="d"))
    assert index.examples["train"] == 8 * PHASE_STEPS // HEAD.epochs
    return home, prepare(home, source, index, image_size=32, resize="stretch", store=StoreConfig())


def draw_death(randomness: random.Random) -> Death:
    place = randomness.choice(["step", "half written", "written"])
    return Death(place, randomness.randint(1, PHASE_STEPS // (1 if place == "step" else EVERY_STEPS)))


RANDOM_DEATHS = [(draw_death(randomness), draw_death(randomness)) for randomness in map(random.Random, range(3))]
VARIANTS = [
    {},
    {"augment": {"where": "model"}},
    {"augment": {"mixup": 0.4, "cutmix": 1.0}, "sampling": "balanced"},
]


@pytest.mark.parametrize(("changes", "deaths"), list(zip(VARIANTS, RANDOM_DEATHS, strict=True)), ids=str)
def test_both_phases_give_the_same_artifacts(
    changes: dict[str, Any],
    deaths: tuple[Death, Death],
    processes: Processes,
    prepared: tuple[Path, PreparedImages],
    tmp_path: Path,
) -> None:
    assert_phases_resume(processes, prepared, tmp_path, changes, deaths)


def test_both_phases_on_stored_activations_give_the_same_artifacts(
    processes: Processes, prepared: tuple[Path, PreparedImages], tmp_path: Path
) -> None:
    with small_lite0():
        embedded = embed(*prepared, config=embed_slice(Recipe.model_validate({**TINY, **STORED})))
    assert embedded.features is not None
    assert embedded.activations is not None
    assert len(embedded.activations.views) > 1
    deaths = (Death("step", 7), Death("half written", 3))  # each within an epoch, behind a checkpoint
    assert_phases_resume(processes, prepared, tmp_path, {}, deaths, embedded)


def test_embedding_that_was_killed_goes_on_within_a_view(
    processes: Processes, prepared: tuple[Path, PreparedImages], tmp_path: Path
) -> None:
    """No shard is full by then; the death is between a batch's features and its activations."""
    nothing_embedded = shutil.ignore_patterns("activations")  # as another test leaves it
    home, images = shutil.copytree(prepared[0], tmp_path / "home", ignore=nothing_embedded), prepared[1]
    said: list[Progress] = []
    assert processes.run(resumable.run_embedding, home, images, STORED, Death("embedded", 8)) == -signal.SIGKILL
    with small_lite0():
        config = embed_slice(Recipe.model_validate({**TINY, **STORED}))
        embedded = embed(home, images, config=config, report=said.append)
    views = count_views(config.augment, config.cache.views)
    all_views = views * len(read_split(home, images, "train")) + len(read_split(home, images, "validation"))
    assert said[-1].total == said[-1].done == all_views - 3 * 8
    assert embedded.features is not None
    assert embedded.activations is not None


def assert_phases_resume(
    processes: Processes,
    prepared: tuple[Path, PreparedImages],
    folder: Path,
    changes: dict[str, Any],
    deaths: tuple[Death, Death],
    embedded: Embedded | None = None,
) -> None:
    """Each phase is run undisturbed, and again with a death in it."""
    head: TrainedModel | None = None
    for phase, death in zip(("head", "fine_tune"), deaths, strict=True):
        whole, killed = folder / phase / "whole", folder / phase / "killed"
        whole.mkdir(parents=True), killed.mkdir()
        assert processes.run(resumable.run_phase, *prepared, head, whole, changes, None, embedded) == 0
        assert processes.run(resumable.run_phase, *prepared, head, killed, changes, death, embedded) == -signal.SIGKILL
        assert processes.run(resumable.run_phase, *prepared, head, killed, changes, None, embedded) == 0
        trained, resumed = (TrainedModel.model_validate(read_json(each / "trained.json")) for each in (whole, killed))
        assert resumed == trained, (phase, death)
        assert trained.phase == phase, "the kept weights are those of the phase before: nothing was compared"
        head = trained
