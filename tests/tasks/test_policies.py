"""Keys, locks and records of the stages."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import HeadConfig, Recipe
from pipelines.contracts import Artifact, ImageIndex, Listing, TrainedModel
from pipelines.errors import RunError
from pipelines.progress import Progress
from pipelines.slices import ingest_slice, training_slice
from pipelines.store.artifacts import artifact_path, publish, scratch_folder
from tasks import locks as locks_module
from tasks.locks import FileLocks
from tasks.policies import (
    DescriptorSerializer,
    Place,
    check_recorded,
    checkpoints_of,
    discard_checkpoints,
    discard_stale_checkpoints,
    stage_key,
    use_home,
)
from tasks.progress import Silent, listening

LISTING = Listing(artifact=Artifact(path="artifacts/scan/1", digest="1"), classes=("a", "b"), files=9)


def key(**changes: Any) -> str:
    inputs = {
        "place": Place(Path("/home"), Path("/source")),
        "listing": LISTING,
        "config": ingest_slice(Recipe(), dataset="d"),
    }
    return stage_key("ingest", inputs | changes)


def test_a_key_depends_on_content_and_recipe_but_not_on_place() -> None:
    assert key() == key(place=Place(Path("/moved"), Path("/elsewhere")))
    assert key() == key(listing=LISTING.model_copy(update={"artifact": Artifact(path="other/path", digest="1")}))
    assert key() != key(listing=LISTING.model_copy(update={"artifact": Artifact(path="artifacts/scan/1", digest="2")}))
    assert key() != key(config=ingest_slice(Recipe(max_pixels=2), dataset="d"))
    assert key() == key(config=ingest_slice(Recipe(head=HeadConfig(epochs=1)), dataset="d"))
    assert key() != stage_key("prepare", {"listing": LISTING, "config": ingest_slice(Recipe(), dataset="d")})


def test_a_key_is_the_same_in_every_process() -> None:
    code = "from tests.tasks.test_policies import key; print(key())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key()


def test_other_weights_under_the_same_name_are_another_key(tmp_path: Path) -> None:
    def slice_key() -> str:
        recipe = Recipe.model_validate({"model": {"weights": str(tmp_path / "w.weights.h5")}})
        return stage_key("head", {"config": training_slice(recipe)})

    (tmp_path / "w.weights.h5").write_bytes(b"1")
    first = slice_key()
    (tmp_path / "w.weights.h5").write_bytes(b"2")
    assert slice_key() != first


@pytest.mark.parametrize("value", [{1, 2}, object(), [1], Path("x"), b"x"])
def test_an_input_without_a_stable_key_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="can't be part of a stage's key"):
        stage_key("ingest", {"value": value})


def trained(home: Path) -> TrainedModel:
    with scratch_folder(home) as folder:
        (folder / "weights.npz").write_bytes(b"weights")
        artifact = publish(home, "head", folder)
    return TrainedModel(artifact=artifact, phase="head", epoch=1, val_accuracy=1, val_loss=0)


def test_a_record_counts_only_while_its_artifact_is_whole(tmp_path: Path) -> None:
    descriptor, serializer = trained(tmp_path), DescriptorSerializer()
    record = serializer.dumps(descriptor)
    with pytest.raises(LookupError):
        serializer.loads(record)  # no home is known
    with use_home(tmp_path):
        assert serializer.loads(record) == descriptor
        (artifact_path(tmp_path, descriptor.artifact) / "weights.npz").write_bytes(b"altered")
        with pytest.raises(ValueError, match="gone or altered"):
            serializer.loads(record)


def test_a_record_outlives_a_moved_home(tmp_path: Path) -> None:
    descriptor = trained(tmp_path / "old")
    record = DescriptorSerializer().dumps(descriptor)
    (tmp_path / "old").rename(tmp_path / "new")
    with use_home(tmp_path / "new"):
        assert DescriptorSerializer().loads(record) == descriptor


def test_a_record_of_another_version_is_a_miss(tmp_path: Path) -> None:
    record = DescriptorSerializer().dumps(trained(tmp_path))
    with use_home(tmp_path), pytest.raises(ValueError, match="extra"):
        DescriptorSerializer().loads(record.replace(b'"phase"', b'"stage"'))
    with use_home(tmp_path), pytest.raises(KeyError):
        DescriptorSerializer().loads(record.replace(b"TrainedModel", b"Renamed"))


def test_only_descriptors_are_recorded() -> None:
    with pytest.raises(TypeError, match="must return a descriptor"):
        DescriptorSerializer().dumps(Artifact(path="x", digest="y"))


def test_a_missing_record_is_an_error(tmp_path: Path) -> None:
    index = ImageIndex(artifact=Artifact(path="x", digest="y"), classes=("a",), examples={}, bad_files=0)
    with pytest.raises(RunError, match="stage `prepare` could not be recorded"):
        check_recorded(tmp_path, "prepare", {"index": index})


def test_a_lock_is_held_by_one_and_can_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    mine, other = FileLocks(tmp_path), FileLocks(tmp_path)
    assert copy.deepcopy(mine) is mine
    assert mine.acquire_lock("key", "me")
    assert mine.acquire_lock("key", "me", acquire_timeout=0)
    assert not other.acquire_lock("key", "you", acquire_timeout=0)
    assert mine.is_locked("key")
    assert other.is_locked("key")
    assert (mine.is_lock_holder("key", "me"), mine.is_lock_holder("key", "you")) == (True, False)
    with pytest.raises(ValueError, match="does not hold"):
        mine.release_lock("key", "you")
    mine.release_lock("key", "me")
    assert not other.is_locked("key")
    assert other.wait_for_lock("key", timeout=0)
    assert other.acquire_lock("key", "you", acquire_timeout=0)


def test_a_killed_process_lets_go_of_its_locks(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tasks.locks import FileLocks\n"
        "locks = FileLocks(pathlib.Path(sys.argv[1])); locks.acquire_lock('key', 'child')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        locks = FileLocks(tmp_path)
        assert locks.is_locked("key")
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert locks.acquire_lock("key", "me", acquire_timeout=10)


def test_waiting_for_another_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks_module, "_QUIET_WAIT_SECONDS", 0.01)
    mine, other = FileLocks(tmp_path), FileLocks(tmp_path)
    assert other.acquire_lock("head-1", "other")
    told: list[tuple[str, str]] = []

    class Listening(Silent):
        def progressed(self, stage: str, progress: Progress) -> None:
            told.append((stage, progress.detail))
            other.release_lock("head-1", "other")

    with listening(Listening()):
        assert mine.acquire_lock("head-1", "me")
    assert told == [("head", "waits for another run that is doing the same work")]
    assert mine.is_lock_holder("head-1", "me")


def test_checkpoints_belong_to_the_same_work_alone(tmp_path: Path) -> None:
    place = Place(tmp_path, Path("/source"), checkpoint_every_steps=7)
    inputs = {"listing": LISTING, "config": ingest_slice(Recipe(), dataset="d")}
    checkpoints = checkpoints_of(place, "head", **inputs)
    assert checkpoints.every_steps == 7
    assert checkpoints.folder == tmp_path / "checkpoints" / stage_key("head", inputs)
    checkpoints.folder.mkdir(parents=True)
    discard_checkpoints(tmp_path, "head", inputs)
    assert not checkpoints.folder.exists()


def test_checkpoints_that_nobody_went_on_with_are_removed_in_the_end(tmp_path: Path) -> None:
    old, new = tmp_path / "checkpoints" / "old", tmp_path / "checkpoints" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    discard_stale_checkpoints(tmp_path)
    assert [path.name for path in old.parent.iterdir()] == ["new"]
    discard_stale_checkpoints(tmp_path / "without")
