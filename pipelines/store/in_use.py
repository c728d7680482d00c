"""Who uses a home: runs share it, and whoever removes things from it has it alone.

On `flock`, of which a killed process lets go by itself.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import RunError
from pipelines.store.artifacts import disk_errors

_LOCK = "in_use.lock"


@contextmanager
def home_in_use(home: Path, *, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keeps everything in a home from being removed meanwhile; any number of runs may do so at once.

    Args:
        home: made where it is missing.
        tell: called where it has to wait, until what is being removed is gone.

    Raises:
        RunError: no space left on the device.
    """
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        file = (home / _LOCK).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            tell()
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def home_alone(home: Path) -> Iterator[None]:
    """Has a home alone: runs that begin meanwhile wait.

    Raises:
        RunError: a run uses it.
    """
    with (home / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"a run uses {home}, and nothing was removed; clean it when the run has ended") from error
        yield
