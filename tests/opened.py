"""Which files a piece of code opens, told by Python itself: no patch can miss a way to read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_watched: list[tuple[str, list[str]]] = []


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """A list that the paths of files below `folder`, relative to it, are added to when they are opened."""
    opened: list[str] = []
    _watched.append((f"{folder}/", opened))
    try:
        yield opened
    finally:
        _watched.pop()


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watched or not isinstance(arguments[0], str):
        return
    for folder, opened in _watched:
        if arguments[0].startswith(folder):
            opened.append(arguments[0].removeprefix(folder))


sys.addaudithook(_hear)  # it can't be taken away again
