"""Stages of a few lines, to be run in a child process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pipelines.contracts import Artifact, Listing
from pipelines.errors import InputError
from pipelines.progress import Progress, Report
from pipelines.signals import put_off_signals


def tell_pid(name: str, report: Report) -> Listing:
    """A descriptor that says in which process it was made."""
    print("what a library says on standard output")
    report(Progress(1, 2, "files", name, images_per_second=0.5))
    return Listing(artifact=Artifact(path=name, digest=str(os.getpid())), classes=("a", "b"), files=os.getpgid(0))


def tell_device(report: Report) -> str:
    """What the environment says."""
    return os.environ["TOY_DEVICE"]


def fail(kind: str, report: Report) -> Listing:
    """Raises an error of that kind."""
    if kind == "input":
        raise InputError("`this` is wrong")
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")
    error = ZeroDivisionError("nobody foresaw it")
    error.add_note("while counting")
    raise error


def die(name: str, report: Report) -> Listing:
    """Ends the process as a native crash or the system would."""
    print("the last words", file=sys.stderr, flush=True)
    if name == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    os.abort()


def work(folder: Path, report: Report) -> Listing:
    """Works on until it is told to stop, and then saves; starts a process of its own too."""
    helper = subprocess.Popen(["sleep", "1000"])
    (folder / "pids").write_text(f"{os.getpid()} {helper.pid}")
    with put_off_signals() as let_signals_through:
        try:
            while True:
                report(Progress(0, 1, "steps"))
                threading.Event().wait(0.02)
                let_signals_through()
        except KeyboardInterrupt:
            (folder / "saved").write_text("all")
            raise


def ignore(folder: Path, report: Report) -> Listing:
    """Does not hear that it is to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "pids").write_text(str(os.getpid()))
    report(Progress(0, 1, "steps"))
    threading.Event().wait()
    raise AssertionError
