"""A disk that is really full: a small file system in memory, where this process may mount one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.surroundings import _check_space
from pipelines.errors import RunError
from tests.flows.commands import finish, start_command, write_recipe
from tests.flows.conftest import LEARNS
from tests.sources.folders import write_classes, write_tinted

pytestmark = pytest.mark.slow
COMMAND = str(Path(sys.executable).with_name("imagemill"))


def mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fill(rubbish: Path) -> None:
    """Writes a file until nothing fits beside it."""
    with rubbish.open("wb", buffering=0) as opened, pytest.raises(OSError, match="No space left"):
        while opened.write(bytes(4096)):
            pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or not mount(folder, "size=24m"):
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_with_room_for_a_part_of_prefect_s_database_is_full(disk: Path) -> None:
    _check_space(disk)
    assert mount(disk, "remount,size=1m")
    with pytest.raises(RunError, match=f"no space left on the device that holds {disk}"):
        _check_space(disk)
    assert mount(disk, "remount,ro")
    _check_space(disk)  # another trouble, for the error at hand to tell
    assert mount(disk, "remount,rw")


def test_a_full_disk_ends_the_run_cleanly_and_with_more_space_it_goes_on(disk: Path, tmp_path: Path) -> None:
    source = write_classes(tmp_path / "photos", {"cat": 12, "dog": 12})
    settings = ["image_size=32", "batch_size=8", "model.weights=none", "head.epochs=1", "fine_tune.epochs=0"]
    command = [COMMAND, "train", str(source), "--home", str(disk / "home"), "--out", str(tmp_path / "out")]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    for size in ("1m", "24m"):  # too little for Prefect's database, and for the model
        assert mount(disk, f"remount,size={size}")
        full = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert full.returncode == 1
        assert full.stderr.startswith("imagemill: no space left on the device that holds ")
        assert len(full.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    assert mount(disk, "remount,size=900m")
    roomy = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert roomy.returncode == 0, roomy.stderr
    stages = json.loads((tmp_path / "out" / "timings.json").read_text())["stages"]
    assert (stages["ingest"]["cache"], stages["prepare"]["cache"], stages["head"]["cache"]) == ("hit", "hit", "miss")


def test_a_disk_that_fills_up_while_it_trains_keeps_the_last_checkpoint_and_it_goes_on_from_that(
    disk: Path, tmp_path: Path
) -> None:
    assert mount(disk, "remount,size=64m")
    source = write_tinted(tmp_path / "photos", {"red": 12, "green": 12})
    learning = {**LEARNS["fine_tune"], "epochs": 200, "patience": 200}
    recipe = write_recipe(tmp_path / "recipe.yaml", fine_tune=learning, registry={"enabled": False})
    command = ["train", source, "--config", recipe, "--home", disk / "home", "--out", tmp_path / "out"]
    with start_command(*command) as training:
        assert training.stdout is not None
        next(line for line in training.stdout if line.startswith("fine_tune: epoch 2/"))
        fill(disk / "rubbish")
        errors = training.communicate(timeout=300)[1]
    assert training.returncode == 1
    # Named by the checkpoint, or by the home where Prefect's database was told of that in vain.
    assert errors.startswith(f"imagemill: no space left on the device that holds {disk / 'home'}")
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    (checkpoints,) = (disk / "home" / "checkpoints").iterdir()
    assert list(checkpoints.iterdir())
    (disk / "rubbish").unlink()
    said = finish(start_command(*command))
    assert "fine_tune: goes on from its checkpoint at step " in said
    assert "fine_tune: epoch 2/" not in said
    epochs = pq.read_table(tmp_path / "out" / "history.parquet")["epoch"].to_pylist()
    assert epochs == list(range(1, len(epochs) + 1))
