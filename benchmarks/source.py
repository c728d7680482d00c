"""The photos that a benchmark runs on: class folders, or a tar of them."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack_classes(archive: Path, folder: Path) -> Path:
    """Unpacks a tar into `folder` and returns the folder in it that holds the class folders."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    root = folder
    while len(list(root.iterdir())) == 1:
        root = next(root.iterdir())
    return root
