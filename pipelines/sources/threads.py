"""The same work on many files, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items to a future, which takes 13 us and 1.6 kB.
CHUNK = 16


def map_chunks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[list[Result]]:
    """Calls a function for each item, in threads, and yields the results in order, `CHUNK` at a time.

    Worth it where the work waits for files or lets go of the interpreter's lock. What has not begun when the caller stops
    iterating is dropped.

    Raises: what `function` raises, at the first item in order that made it.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda chunk: [function(item) for item in chunk], chunks)
