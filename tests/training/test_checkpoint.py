"""Checkpoints at rest: whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import RunError
from pipelines.store.artifacts import read_json
from pipelines.training import checkpoint
from pipelines.training.checkpoint import Checkpoint, Checkpoints


def refuse(line: str) -> None:
    raise AssertionError(line)


def make(step: int) -> Checkpoint:
    state = [np.float32(step), np.arange(step, dtype=np.uint32), np.zeros((0, 3), np.float16)]
    return Checkpoint(step, {"rows": [{"loss": 0.1 * step}]}, {"state": state, "best": []})


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "new" / "folder", every_steps=1)


def test_what_is_read_is_what_was_saved(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest(say=refuse) is None
    checkpoints.save(make(3))
    read = checkpoints.latest(say=refuse)
    assert read is not None
    assert (read.step, read.notes, list(read.arrays)) == (3, make(3).notes, ["state", "best"])
    for mine, saved in zip(read.arrays["state"], make(3).arrays["state"], strict=True):
        assert mine.dtype == saved.dtype
        np.testing.assert_array_equal(mine, saved)


def test_the_last_two_are_kept_and_the_newest_is_read(checkpoints: Checkpoints) -> None:
    for step in (9, 10, 11):
        checkpoints.save(make(step))
    assert sorted(int(path.name[:10]) for path in checkpoints.folder.iterdir()) == [10, 11]
    latest = checkpoints.latest(say=refuse)
    assert latest is not None
    assert latest.step == 11


@pytest.mark.parametrize("left_bytes", [0, 100, -1])
def test_a_truncated_one_is_named_and_removed_and_the_one_before_used(checkpoints: Checkpoints, left_bytes: int) -> None:
    checkpoints.save(make(1))
    checkpoints.save(make(2))
    newest = max(checkpoints.folder.iterdir())
    newest.write_bytes(newest.read_bytes()[:left_bytes])
    said: list[str] = []
    latest = checkpoints.latest(say=said.append)
    assert latest is not None
    assert latest.step == 1
    assert said == [f"checkpoint {newest} is truncated or altered and is removed; the one before it is tried"]
    checkpoints.save(make(1))
    checkpoints.save(make(0))  # by a run that was told to start anew
    assert not newest.exists()


def test_where_all_are_truncated_that_is_said_and_none_is_used(checkpoints: Checkpoints) -> None:
    checkpoints.save(make(1))
    checkpoints.save(make(2))
    paths = sorted(checkpoints.folder.iterdir(), reverse=True)
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    said: list[str] = []
    assert checkpoints.latest(say=said.append) is None
    assert said == [
        f"checkpoint {paths[0]} is truncated or altered and is removed; the one before it is tried",
        f"checkpoint {paths[1]} is truncated or altered and is removed; none is left, and the phase starts anew",
    ]
    assert not list(checkpoints.folder.iterdir())


def test_a_full_disk_leaves_the_last_one_and_no_rest(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(make(1))
    before = list(checkpoints.folder.iterdir())

    def fail(path: Path, _: Checkpoint) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", fail)
    with pytest.raises(RunError, match="no space left"):
        checkpoints.save(make(2))
    assert list(checkpoints.folder.iterdir()) == before


def test_a_failure_is_written_beside_them_and_touches_none(checkpoints: Checkpoints) -> None:
    checkpoints.save(make(1))
    path = checkpoints.write_failure({"step": 2})
    assert read_json(path) == {"step": 2}
    latest = checkpoints.latest(say=refuse)
    assert latest is not None
    assert latest.step == 1


def test_cleared_checkpoints_are_gone(checkpoints: Checkpoints) -> None:
    checkpoints.save(make(1))
    checkpoints.clear()
    assert not list(checkpoints.folder.iterdir())
