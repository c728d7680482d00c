"""Locks that a killed run leaves to its child, for as long as that still works under them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.devices import Devices, hold_devices, taken_devices
from tasks.locks import FileLocks
from tests.processes import is_running, wait_for

CPU = Devices("cpu", ("cpu",), "here")
RUN = """
import sys
from pathlib import Path
from pipelines.progress import ignore_progress
from tasks import worker
from tasks.devices import Devices, hold_devices
from tasks.locks import FileLocks
folder = Path(sys.argv[1])
worker.STAGES = {name: f"tests.tasks.toys:{name}" for name in ("tell_pid", "save_slowly")}
locks = FileLocks(folder / "locks")
with worker.ChildWorker(folder / "logs") as child, hold_devices(Devices("cpu", ("cpu",), "here")):
    locks.acquire_lock("first", "me")
    child.run("tell_pid", {"name": "x"}, report=ignore_progress)
    locks.release_lock("first", "me")
    locks.acquire_lock("second", "me")
    child.run("save_slowly", {"folder": folder}, report=ignore_progress)
"""


def test_a_killed_run_leaves_its_locks_to_its_child_until_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_SLOTS", str(tmp_path / "slots"))
    locks = FileLocks(tmp_path / "locks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=environment) as run:
        try:
            wait_for(lambda: (tmp_path / "pids").is_file() and bool((tmp_path / "pids").read_text()))
            child = int((tmp_path / "pids").read_text())
            opened = [path.readlink().name for path in Path(f"/proc/{child}/fd").iterdir()]
        finally:
            run.send_signal(signal.SIGKILL)
    assert sorted(name for name in opened if name.endswith(".lock")) == ["cpu.lock", "second.lock"]
    wait_for((tmp_path / "saving").is_file)
    assert locks.is_locked("second")
    assert taken_devices(CPU) == ["cpu"]
    assert is_running(child)
    (tmp_path / "saved").touch()
    assert locks.acquire_lock("second", "me", acquire_timeout=30)
    with hold_devices(CPU):
        assert not is_running(child)
