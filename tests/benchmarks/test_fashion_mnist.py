"""Fashion-MNIST from IDX files: drawn ones, and Debian's where they are installed."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.fashion_mnist import CLASSES, IDX_FILES, PARTS, read_idx, write_folders
from pipelines.sources.folder import digest_files, find_images


def write_idx(path: Path, values: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def test_idx_files_become_class_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (30, 28, 28), np.uint8)
    for prefix in PARTS.values():
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(30) % 10)
    write_folders(tmp_path, tmp_path / "out", per_class=2)
    classes, files = find_images(tmp_path / "out")
    assert classes == sorted(CLASSES)
    assert [file.split for file in files] == ["train"] * 20 + ["test"] * 20
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "test" / CLASSES[3] / "00013.png")), pixels[13])


def test_what_is_no_idx_file_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01" + bytes(8)))
    with pytest.raises(ValueError, match="must be an IDX file of unsigned bytes"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.skipif(not IDX_FILES.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debian_s_files_are_a_source(tmp_path: Path) -> None:
    write_folders(IDX_FILES, tmp_path / "out", per_class=3)
    classes, files = find_images(tmp_path / "out")
    assert len(classes) == 10
    assert len(files) == 60
    assert len({file.sha256 for file in digest_files(tmp_path / "out", files)}) == 60
