"""Writes class folders of drawn photos for tests."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.images import draw_photo, encode


def write_classes(root: Path, counts: Mapping[str, int], *, size: int = 48) -> Path:
    """Writes `counts[label]` different JPEG photos of each class into `root/label/`; returns `root`.

    Nothing but chance tells the classes apart.
    """
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_photo(root / label / f"{number:03d}.jpg", seed=zlib.crc32(f"{label} {number}".encode()), size=size)
    return root


def write_photo(path: Path, *, seed: int, size: int = 48) -> None:
    """Writes one JPEG photo."""
    path.write_bytes(encode(draw_photo(size, size, seed), "JPEG", quality=95))


def write_learnable(root: Path, count: int) -> Path:
    """Writes two classes of `count` photos each that differ in which half of the picture is dark."""
    for number, label in enumerate(("dark above", "dark below")):
        (root / label).mkdir(parents=True)
        for photo in range(count):
            pixels = np.asarray(draw_photo(48, 48, 1000 * number + photo)).copy()
            pixels[24 * number : 24 * (number + 1)] //= 8
            (root / label / f"{photo:03d}.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    return root


def write_tinted(root: Path, counts: Mapping[str, int]) -> Path:
    """Writes `counts[label]` different photos of each of the classes red, green and blue, in which that colour prevails."""
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.asarray(draw_photo(40, 40, zlib.crc32(f"{label} {number}".encode()))).copy()
            pixels[..., [channel != ("red", "green", "blue").index(label) for channel in range(3)]] //= 3
            (root / label / f"{number:03d}.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    return root


def age(root: Path) -> Path:
    """Makes all files an hour older, so that a scan may trust their times; returns `root`."""
    for path in root.rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 3_600_000_000_000))
    return root


def alter_in_secret(path: Path, contents: bytes) -> None:
    """Replaces the bytes of a file and restores its time; `contents` must be as long as what is there."""
    status = path.stat()
    assert len(contents) == status.st_size
    path.write_bytes(contents)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
