"""Locks that outlive a killed holder for as long as its child still works under them. Imports neither TensorFlow nor Prefect.

What `flock` locks is an open file, whoever has it open. So the child is handed the open files of the locks: then they are held
until the process that took them lets go, or, where that was killed, until the child has gone too. Somebody else would else
begin to write where the child still saves a checkpoint.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakKeyDictionary

from filelock import FileLock

_MARK = b"."  # descriptors travel with some byte
_MOST = 253  # descriptors in one message, on Linux

_descriptors: WeakKeyDictionary[FileLock, deque[int]] = WeakKeyDictionary()


def work_lock(path: Path) -> FileLock:
    """A lock on a file, still to be taken; what works in a child while it is held holds it too.

    On a file system without `flock` taking it is an OSError: no lock there would come back by itself after a kill -9.
    """
    latest: deque[int] = deque(maxlen=1)
    lock = FileLock(path, on_acquired=latest.append, thread_local=False)
    _descriptors[lock] = latest
    return lock


def send_locks(to: socket.socket) -> int:
    """Sends the open files of all locks that this process holds; returns how many.

    Raises:
        ConnectionError: nobody is there to have them.
    """
    held = [latest[-1] for lock, latest in _descriptors.items() if lock.is_locked]
    if held:
        socket.send_fds(to, [_MARK], held)
    return len(held)


def receive_locks(source: socket.socket, count: int) -> list[int]:
    """The open files of so many locks that were sent together."""
    return socket.recv_fds(source, len(_MARK), _MOST)[1] if count else []


def close_locks(descriptors: Iterable[int]) -> None:
    """Has no part in these locks any more; they stay with who took them."""
    for descriptor in descriptors:
        os.close(descriptor)
