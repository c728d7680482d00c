"""What a process keeps of a store in memory of its own: hardly anything, however many images there are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.memory import measure, write_store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")]
# 18,000 more images are 53 MiB more of pixels. Their numbers, labels and digests are 2; 15 were seen, most of it while places
# are looked up.
MOST_GROWTH_MIB = 30


def test_own_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    peaks = []
    for images in (2_000, 20_000):
        descriptor = write_store(tmp_path / str(images), images=images, size=32)
        peaks.append(measure(descriptor, epochs=1, limit_mib=1024))
    assert peaks[1] - peaks[0] < MOST_GROWTH_MIB
    assert peaks[0] > 100, "TensorFlow alone takes more: nothing was measured"
