"""Writes class folders of drawn photos for tests."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from tests.images import draw_photo, encode


def write_classes(root: Path, counts: Mapping[str, int], *, size: int = 48) -> Path:
    """Writes `counts[label]` different JPEG photos of each class into `root/label/`; returns `root`."""
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_photo(root / label / f"{number:03d}.jpg", seed=zlib.crc32(f"{label} {number}".encode()), size=size)
    return root


def write_photo(path: Path, *, seed: int, size: int = 48) -> None:
    """Writes one JPEG photo."""
    path.write_bytes(encode(draw_photo(size, size, seed), "JPEG", quality=95))
