"""Freed memory is kept: blocks of the size of activations cost page faults once, not at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, numpy as np
from pipelines.allocator import keep_freed_memory
if sys.argv[1] == "keep": assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): np.ones(8 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_large_blocks_are_reused() -> None:
    def faults(kind: str) -> int:
        done = subprocess.run([sys.executable, "-c", CODE, kind], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") * 4 < faults("leave")
