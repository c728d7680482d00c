"""A disk that is really full while a child saves a checkpoint: what is said, what stays, and how it goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.errors import RunError
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.training.checkpoint import Checkpoints
from tasks import worker
from tasks.devices import Devices, hold_devices, taken_devices
from tasks.worker import ChildWorker
from tests.flows.test_full_disk import mount

CPU = Devices("cpu", ("cpu",), "here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, "size=1m"):
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_for_a_checkpoint_fails_the_stage_alone_and_with_room_it_goes_on(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setattr(worker, "STAGES", {"count_up": "tests.tasks.toys:count_up"})
    checkpoints = Checkpoints(disk / "checkpoints" / "count_up-1", every_steps=1)
    checkpoints.folder.mkdir(parents=True)
    (checkpoints.folder / "wait").touch()

    @contextmanager
    def slot(_: Report) -> Iterator[dict[str, str]]:
        with hold_devices(CPU):
            yield {}

    def fill(_: Progress) -> None:
        with (disk / "rubbish").open("wb", buffering=0) as rubbish, pytest.raises(OSError, match="No space left"):
            while rubbish.write(bytes(4096)):
                pass
        (checkpoints.folder / "wait").unlink()

    def run(report: Report) -> object:
        with ChildWorker(disk / "logs", slot=slot) as child:
            return child.run("count_up", {"checkpoints": checkpoints}, report=report)

    with pytest.raises(RunError) as full:
        run(fill)
    line = "no space left on the device that holds {}; free some and run it again: finished stages are kept"
    assert str(full.value) == line.format(checkpoints.folder)
    assert taken_devices(CPU) == []
    assert list((disk / "logs").iterdir()) == []
    (only,) = checkpoints.folder.iterdir()
    assert only.name.startswith("0000000001-")
    (disk / "rubbish").unlink()
    assert run(ignore_progress) == [2, 3]
