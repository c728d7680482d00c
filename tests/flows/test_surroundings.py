"""Prefect's settings, and what is said when its server is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.surroundings import configure

COMMAND = str(Path(sys.executable).with_name("imagemill"))


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    environment = {"PREFECT_HOME": str(tmp_path / "mine"), "DO_NOT_TRACK": "0"}
    configure(tmp_path / "home", verbose=False, environment=environment)
    assert environment["PREFECT_HOME"] == str(tmp_path / "mine")
    assert environment["DO_NOT_TRACK"] == "0"
    assert environment["PREFECT_LOGGING_LEVEL"] == "CRITICAL"


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(tmp_path: Path, photos: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    command = [COMMAND, "train", str(photos), "--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    command += ["--set", "batch_size=8"]
    environment = {**os.environ, "PREFECT_API_URL": address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"imagemill: the Prefect server at {address} does not answer (")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
