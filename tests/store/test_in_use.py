"""Runs share a home, and nobody removes anything meanwhile; a killed one lets go."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import RunError
from pipelines.store.in_use import home_alone, home_in_use

_HOLDS = """
import sys, threading
from pathlib import Path
from pipelines.store.in_use import home_alone, home_in_use
with globals()[sys.argv[1]](Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(kind: str, home: Path) -> subprocess.Popen[str]:
    """Another process that has the home until its standard input closes."""
    command = [sys.executable, "-c", _HOLDS, kind, str(home)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_runs_share_a_home_and_nothing_is_removed_until_the_last_is_gone(tmp_path: Path) -> None:
    with hold("home_in_use", tmp_path) as other:
        with home_in_use(tmp_path), pytest.raises(RunError, match="a run uses"), home_alone(tmp_path):
            pass
        with pytest.raises(RunError, match="a run uses"), home_alone(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with home_alone(tmp_path):
        pass


def test_a_run_that_begins_meanwhile_waits_and_says_so(tmp_path: Path) -> None:
    said = []
    with hold("home_alone", tmp_path) as other:

        def let_go() -> None:
            said.append("waits")
            assert other.stdin is not None
            other.stdin.close()

        with home_in_use(tmp_path, tell=let_go):
            assert said == ["waits"]
