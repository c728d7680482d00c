"""Stages of a few lines, to be run in a child process."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from pipelines.contracts import Artifact, Listing
from pipelines.errors import InputError
from pipelines.progress import Progress, Report
from pipelines.signals import put_off_signals
from pipelines.training.checkpoint import Checkpoint, Checkpoints


def tell_pid(name: str, report: Report) -> Listing:
    """A descriptor that says in which process it was made."""
    print("what a library says on standard output")
    report(Progress(1, 2, "files", name, images_per_second=0.5))
    return Listing(artifact=Artifact(path=name, digest=str(os.getpid())), classes=("a", "b"), files=os.getpgid(0))


def leave_file(report: Report) -> str:
    """Makes a temporary file, as TensorFlow does, and leaves it; returns its path."""
    return tempfile.mkstemp()[1]


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
    print("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR", file=sys.stderr)
    print("the last words", file=sys.stderr, flush=True)
    if name == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    os.abort()


def crash(folder: Path, report: Report) -> Listing:
    """Ends as a native crash would, with a process of its own that goes on."""
    helper = subprocess.Popen(["sleep", "1000"])
    (folder / "pids").write_text(f"{os.getpid()} {helper.pid}")
    os.abort()


def break_off(report: Report) -> Listing:
    """Is killed in the middle of its answer."""
    print("the last words", file=sys.stderr, flush=True)
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > sys.stderr.fileno() and is_pipe(descriptor):
            os.write(descriptor, b'{"kind": null, "ma')
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def is_pipe(descriptor: int) -> bool:
    """Whether this is one; not where it has been closed."""
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def say_much(folder: Path, report: Report) -> Listing:
    """Says more than a pipe holds before it hears that it is to stop, and then saves."""
    with put_off_signals():
        for number in range(2000):
            report(Progress(number, 2000, "steps", "x" * 200))
        (folder / "saved").write_text("all")
    raise AssertionError


def save_slowly(folder: Path, report: Report) -> Listing:
    """Works on until it is told to stop, and then saves for as long as there is no file `saved`."""
    (folder / "pids").write_text(str(os.getpid()))
    try:
        while True:
            threading.Event().wait(0.02)
    except KeyboardInterrupt:
        (folder / "saving").touch()
        while not (folder / "saved").exists():
            threading.Event().wait(0.02)
        raise


def count_up(checkpoints: Checkpoints, report: Report) -> list[int]:
    """Counts to three from its last checkpoint on, with one of 100 KB after each number; returns what it counted."""
    latest = checkpoints.latest(say=print)
    counted = list(range(latest.step + 1 if latest else 1, 4))
    for step in counted:
        checkpoints.save(Checkpoint(step, notes={}, arrays={"weights": [np.full(100_000, step, np.uint8)]}))
        report(Progress(step, 3, "steps"))
        while (checkpoints.folder / "wait").exists():
            threading.Event().wait(0.02)
    return counted


def work(folder: Path, report: Report) -> Listing:
    """Works on until it is told to stop, and then saves; starts a process of its own too."""
    helper = subprocess.Popen(["sleep", "1000"])
    tempfile.mkstemp()
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
