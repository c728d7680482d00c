"""Ctrl-C and SIGTERM between two steps of training, evaluation or export, not inside one.

Python raises what a signal asks for wherever the main thread happens to be. In TensorFlow's native code that may be a place
that does not expect it: seen was a segmentation fault, with no checkpoint and with Prefect's temporary server left behind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def put_off_signals() -> Iterator[Callable[[], None]]:
    """Holds back SIGINT and SIGTERM; the function that it gives lets through what has come.

    A second signal is let through at once, and one that is left over on leaving the block. Outside of the main thread, which
    alone hears signals, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[tuple[int, FrameType | None]] = []

    def hold_back(number: int, frame: FrameType | None) -> None:
        waiting.append((number, frame))
        if len(waiting) > 1:
            let_through()

    def let_through() -> None:
        while waiting:
            number, frame = waiting.pop()
            handlers[number](number, frame)

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {int(number): handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, hold_back)
    try:
        yield let_through
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        let_through()
