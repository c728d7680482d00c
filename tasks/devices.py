"""The devices of this host: which there are, and who has which. Imports neither TensorFlow nor Prefect.

A device is a GPU, or the processor where there is no GPU. Who has one is a file lock of the operating system, so that a
killed process lets go of it by itself.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from pipelines.errors import InputError, RunError, one_line
from tasks.work_locks import work_lock

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # between two looks whether a device has become free
_QUERY_SECONDS = 60.0  # nvidia-smi takes some seconds where the driver sleeps


@dataclass(frozen=True)
class Devices:
    """What a host has to train on.

    Attributes:
        kind: `gpu`, or `cpu` where there is none.
        names: UUIDs of the GPUs, or `cpu` alone.
        host: name of the host.
    """

    kind: Literal["gpu", "cpu"]
    names: tuple[str, ...]
    host: str

    @property
    def limit(self) -> str:
        """Name of the limit on a server whose slots are these devices."""
        return f"{self.kind}-{self.host}"

    def environment(self, held: tuple[str, ...]) -> dict[str, str]:
        """The environment variables with which a new process sees these devices alone, GPU memory growing as it is needed.

        Who has the processor sees no GPU, which others may have: also where nvidia-smi fails. What `CUDA_VISIBLE_DEVICES` says
        already is left as it is: it may name what nvidia-smi does not list.
        """
        if self.kind == "cpu":
            return {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_VISIBLE_DEVICES": "-1"}
        return {"CUDA_VISIBLE_DEVICES": ",".join(held), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def find_devices(environment: Mapping[str, str] = os.environ) -> Devices:
    """The GPUs of this host that `CUDA_VISIBLE_DEVICES` leaves, as the driver tells; the processor where there are none."""
    names = _visible(_all_gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
    return Devices("gpu" if names else "cpu", names or ("cpu",), socket.gethostname())


@contextmanager
def hold_devices(devices: Devices, count: int = 1, *, waiting: Callable[[], None] = lambda: None) -> Iterator[tuple[str, ...]]:
    """Gives the block `count` devices to itself, once they are free; yields their names.

    Taken among all processes of this user on this host, whatever home they work in and whatever server they know. Must not be
    nested.

    Args:
        devices: of this host.
        count: how many.
        waiting: called if they are not free at once.

    Raises:
        InputError: there are not so many.
    """
    check_count(devices, count)
    folder = locks_folder()
    locks = {name: work_lock(folder / f"{name}.lock") for name in devices.names}
    wait = functools.cache(waiting)
    with ExitStack() as stack:
        # One at a time collects: else two that need two devices could have one each, and wait for ever.
        with _turn(FileLock(folder / f"{devices.kind}-collecting.lock"), wait):
            held = _collect(locks, count, stack, wait)
        yield held


def taken_devices(devices: Devices) -> list[str]:
    """The devices that a process of this user has now."""
    folder = locks_folder()
    return [name for name in devices.names if not _is_free(FileLock(folder / f"{name}.lock"))]


def check_count(devices: Devices, count: int) -> None:
    """Refuses more devices than there are.

    Raises:
        InputError: with both numbers.
    """
    if count > len(devices.names):
        there = f"{len(devices.names)} GPUs" if devices.kind == "gpu" else "no GPU, and one processor"
        raise InputError(f"`resources.devices` must be at most what this host has ({there}); received {count}")


def locks_folder() -> Path:
    """The folder of the locks: `IMAGEMILL_SLOTS`, else one per user in the folder for temporary files.

    Containers that share a host's devices share this folder too (docs/service.md).

    Raises:
        RunError: somebody else made it, who could let go of what we hold.
    """
    named = os.environ.get("IMAGEMILL_SLOTS")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"imagemill-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not named and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise RunError(f"{folder} belongs to somebody else; remove it, or name a folder of yours in `IMAGEMILL_SLOTS`")
    return folder


@contextmanager
def _turn(lock: FileLock, wait: Callable[[], None]) -> Iterator[None]:
    with ExitStack() as stack:
        if not _take(lock, stack):
            wait()
            stack.enter_context(lock.acquire(poll_interval=_POLL_SECONDS))
        yield


def _collect(locks: Mapping[str, FileLock], count: int, stack: ExitStack, wait: Callable[[], None]) -> tuple[str, ...]:
    """Takes so many of the locks, each until `stack` ends, as they become free."""
    held: list[str] = []
    while True:
        for name, lock in locks.items():
            if len(held) < count and name not in held and _take(lock, stack):
                held.append(name)
        if len(held) == count:
            return tuple(held)
        wait()
        time.sleep(_POLL_SECONDS)


def _take(lock: FileLock, stack: ExitStack) -> bool:
    try:
        stack.enter_context(lock.acquire(timeout=0))
    except Timeout:
        return False
    return True


def _is_free(lock: FileLock) -> bool:
    with ExitStack() as stack:
        return _take(lock, stack)


def _all_gpus() -> tuple[str, ...]:
    """UUIDs in the order of the PCI bus; none where there is no driver, or it does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_QUERY_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("no GPU is used: nvidia-smi fails (%s)", one_line(error))
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def _visible(gpus: tuple[str, ...], wanted: str | None) -> tuple[str, ...]:
    """What `CUDA_VISIBLE_DEVICES` leaves of the GPUs: as CUDA reads it, the first entry that names none ends the list.

    A number counts in the order of the PCI bus.
    """
    if wanted is None:
        return gpus
    visible: list[str] = []
    for entry in (part.strip() for part in wanted.split(",")):
        named = [gpus[int(entry)]] if entry.isdecimal() and int(entry) < len(gpus) else []
        named = named or [gpu for gpu in gpus if entry and gpu.startswith(entry)]
        if not named or named[0] in visible:
            break
        visible.append(named[0])
    return tuple(visible)
