"""Imports that the garbage collector leaves alone.

While modules are imported it looks again and again at objects that stay: a fifth of the time that TensorFlow's import takes, a
quarter of that of Prefect's server (docs/decisions/0006-what-was-found.md).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """No garbage is collected in the block, in which nothing but imports should be."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
