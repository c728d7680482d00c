"""Fashion-MNIST as class folders, from the IDX files of Debian's package `dataset-fashion-mnist`: 70,000 grey images of 28 px.

apt-get install dataset-fashion-mnist
python -m benchmarks.fashion_mnist fashion
imagemill train fashion     # small images: a small CNN from scratch
"""

from __future__ import annotations

import argparse
import gzip
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.store.artifacts import folder_in_place

IDX_FILES = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PARTS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> Any:
    """The bytes of a gzipped IDX file as uint8, in the shape that its header says.

    Raises:
        ValueError: it is no IDX file of bytes, or of another length than it says.
    """
    contents = gzip.decompress(path.read_bytes())
    if contents[:3] != b"\0\0\x08":
        raise ValueError(f"{path} must be an IDX file of unsigned bytes; it starts with {contents[:4]!r}")
    shape = struct.unpack_from(f">{contents[3]}I", contents, 4)
    return np.frombuffer(contents, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def write_folders(source: Path, out: Path, *, per_class: int | None = None) -> None:
    """Writes `out`/train|test/CLASS/NUMBER.png, or nothing at all.

    Args:
        source: folder of the four IDX files.
        out: replaced if it is there.
        per_class: how many of each class and split; all where None.
    """
    with folder_in_place(out) as folder:
        for split, prefix in PARTS.items():
            pixels = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
            for name in CLASSES:
                (folder / split / name).mkdir(parents=True)
            written: Counter[int] = Counter()
            for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                written[label] += 1
                if per_class is None or written[label] <= per_class:
                    Image.fromarray(image).save(folder / split / CLASSES[label] / f"{number:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--from", type=Path, default=IDX_FILES, dest="source", help=f"folder of the IDX files ({IDX_FILES})")
    parser.add_argument("--per-class", type=int, help="write only so many of each class and split")
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        parser.error(f"{arguments.source} is no folder; apt-get install dataset-fashion-mnist, or name one by --from")
    write_folders(arguments.source, arguments.out, per_class=arguments.per_class)


if __name__ == "__main__":
    main()
