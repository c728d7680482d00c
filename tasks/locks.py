"""The locks by which two runs never do the same work side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from pipelines.progress import Progress
from tasks.progress import current_listener
from tasks.work_locks import work_lock
from tasks.worker import rest_worker

_QUIET_WAIT_SECONDS = 5.0  # for a lock, before it is said what is waited for


def acquire_telling(lock: FileLock, tell: Callable[[], None]) -> None:
    """Takes a lock, however long that takes; where it is not had soon, `tell` is called before the wait goes on."""
    try:
        lock.acquire(timeout=_QUIET_WAIT_SECONDS)
    except Timeout:
        tell()
        lock.acquire()


class FileLocks:
    """Prefect's `LockManager` on the file locks of the operating system: a killed process lets go of them by itself.

    Prefect's own `FileSystemLockManager` keeps a file that says "locked" and hangs forever after a kill -9.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, tuple[str, FileLock]] = {}

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Prefect copies policies; the copy must know the locks that are held."""
        return self

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,  # noqa: ARG002 (a lock is held until it is released, or its process ends)
    ) -> bool:
        """Takes the lock of a key, waiting up to `acquire_timeout` seconds (None: without end); True if it is held now."""
        if self.is_lock_holder(key, holder):
            return True
        lock = self._lock(key)

        def tell() -> None:
            waits = Progress(0, 1, "stages", "waits for another run that is doing the same work", milestone=True)
            current_listener().progressed(key.rpartition("-")[0], waits)
            rest_worker()  # who waits keeps nothing that the other may wait for

        if acquire_timeout is None:
            acquire_telling(lock, tell)
        else:
            try:
                lock.acquire(timeout=acquire_timeout)
            except Timeout:
                return False
        self._held[key] = (holder, lock)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """As `acquire_lock`; flows and tasks here are synchronous, so that nothing else waits for this."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Lets go of a lock.

        Raises:
            ValueError: it is not held by `holder`.
        """
        if not self.is_lock_holder(key, holder):
            raise ValueError(f"{holder} does not hold the lock of {key}")
        _, lock = self._held.pop(key)
        lock.release()

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        return key in self._held or not self.wait_for_lock(key, timeout=0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder`, of this process, holds the lock."""
        return key in self._held and self._held[key][0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Waits until nobody holds the lock; False if it took longer than `timeout` seconds."""
        lock = self._lock(key)
        try:
            with lock.acquire(timeout=-1 if timeout is None else timeout):
                return True
        except Timeout:
            return False

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As `wait_for_lock`."""
        return self.wait_for_lock(key, timeout)

    def _lock(self, key: str) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        return work_lock(self._folder / f"{key}.lock")
