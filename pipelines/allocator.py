"""Memory that a training step frees is kept for the next one, where the C library can be told so.

TensorFlow allocates and frees hundreds of megabytes of activations in every step. glibc hands blocks of that size back to the
operating system at once, and the next step pays for zeroed pages again: 2.7 million page faults where 0.3 million do, and a
sixth of the speed (benchmarks/allocator.py, docs/decisions/0005-allocator.md).
"""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to give no memory back and to keep it in one arena that all threads share.

    Affects the whole process; to be called before TensorFlow starts its threads, since an arena stays with its thread.
    Returns False where the C library is another, which then stays as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        logger.debug("this C library has no mallopt")
        return False
    return all(mallopt(name, value) for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1)))
