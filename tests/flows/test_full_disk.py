"""A disk that is really full: a small file system in memory, where this process may mount one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.folders import write_classes

pytestmark = pytest.mark.slow
COMMAND = str(Path(sys.executable).with_name("imagemill"))


def mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or not mount(folder, "size=24m"):
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_cleanly_and_with_more_space_it_goes_on(disk: Path, tmp_path: Path) -> None:
    source = write_classes(tmp_path / "photos", {"cat": 12, "dog": 12})
    settings = ["image_size=32", "batch_size=8", "model.weights=none", "head.epochs=1", "fine_tune.epochs=0"]
    command = [COMMAND, "train", str(source), "--home", str(disk / "home"), "--out", str(tmp_path / "out")]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
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
