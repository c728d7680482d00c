"""What a run costs when little or nothing of its source changed: the scan, ingest and prepare of many small images.

    python -m benchmarks.incremental [--images 100000] [--json benchmarks/results/incremental.json]

Draws images of noise (24 px, half JPEG and half PNG, ten classes) in a temporary folder, an hour old as files go. Each stage
is called directly, without Prefect: `..._missed` is ingest with a stage key that is new, `..._hit` the check of its record,
which is what a key that is known costs. `..._cpu_seconds` is the processor time of scan and ingest, over all threads: on a
machine that others use too it tells more than the time that passed. Files are counted as Python opens them. All files are in
the page cache.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results import write_results
from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import ImageIndex, Listing
from pipelines.slices import ingest_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from tasks.policies import DescriptorSerializer, use_home

SIDE_PX = 24
CLASSES = 10
REPEATS = 3
CONFIG = ingest_slice(Recipe(), dataset="noise")


def draw_images(root: Path, numbers: range) -> None:
    """Writes an image of noise for each number, another one for each."""
    an_hour_ago = time.time() - 3600
    for label in range(CLASSES):
        (root / f"class {label}").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        kind = ("jpeg", "png")[number % 2]
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind)
        path = root / f"class {number // 2 % CLASSES}" / f"{number:07d}.{kind}"
        path.write_bytes(encoded.getvalue())
        os.utime(path, (an_hour_ago, an_hour_ago))


class Counter:
    """Counts files of a folder as they are opened, and seconds."""

    def __init__(self, root: Path) -> None:
        self._start = f"{root}/"
        self._opened: list[str] = []
        sys.addaudithook(self._hear)

    def measure(self, work: Callable[[], Any]) -> tuple[Any, float, int]:
        """What the work returned, the seconds it took, and how many files it opened."""
        opened, started = len(self._opened), time.perf_counter()
        result = work()
        return result, time.perf_counter() - started, len(self._opened) - opened

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(self._start):
            self._opened.append(arguments[0])  # threads can't lose one, as they can with `+= 1`


class Runs:
    """A home and a source, and the figures of what was done with them."""

    def __init__(self, folder: Path) -> None:
        self._home, self.source = folder / "home", folder / "noise"
        self._counter = Counter(self.source)
        self.figures: dict[str, float] = {}

    def index(self, name: str, *, repeats: int = 1) -> ImageIndex:
        """Scans and ingests, some times over, and notes the medians."""
        samples = [self._index() for _ in range(repeats)]
        for place, stage in enumerate(("scan", "ingest_missed", "ingest_hit")):
            self.figures[f"{name}_{stage}_seconds"] = statistics.median(seconds[place] for _, seconds, _ in samples)
        self.figures[f"{name}_index_seconds"] = statistics.median(sum(seconds[:2]) for _, seconds, _ in samples)
        self.figures[f"{name}_index_cpu_seconds"] = statistics.median(seconds[3] for _, seconds, _ in samples)
        index, _, (self.figures[f"{name}_read"], self.figures[f"{name}_examined"]) = samples[-1]
        return index

    def prepare(self, name: str, index: ImageIndex) -> None:
        """Decodes what the image store lacks."""
        from pipelines.data.prepare import prepare

        def work() -> Any:
            return prepare(self._home, self.source, index, image_size=32, resize="stretch", store=StoreConfig())

        _, self.figures[f"{name}_prepare_seconds"], self.figures[f"{name}_decoded"] = self._counter.measure(work)

    def verify(self) -> None:
        """Scans with every file read again."""
        _, seconds, read = self._counter.measure(lambda: scan_source(self._home, self.source, verify=True))
        self.figures |= {"verify_scan_seconds": seconds, "verify_read": read}

    def _index(self) -> tuple[ImageIndex, tuple[float, ...], tuple[int, int]]:
        cpu_started = time.process_time()
        listing: Listing
        listing, scan_seconds, read = self._counter.measure(lambda: scan_source(self._home, self.source))
        index: ImageIndex
        index, missed_seconds, examined = self._counter.measure(lambda: ingest(self._home, self.source, listing, config=CONFIG))
        cpu_seconds = time.process_time() - cpu_started
        record = DescriptorSerializer().dumps(index)
        with use_home(self._home):
            _, hit_seconds, _ = self._counter.measure(lambda: DescriptorSerializer().loads(record))
        return index, (scan_seconds, missed_seconds, hit_seconds, cpu_seconds), (read, examined)


def run_all(folder: Path, *, images: int) -> dict[str, float]:
    """Everything that is measured, in a new home, with so many images and then a hundredth of them more."""
    import pipelines.data.prepare  # noqa: F401 (TensorFlow is no part of what is measured)

    added = max(1, images // 100)
    runs = Runs(folder)
    draw_images(runs.source, range(images))
    runs.prepare("first", runs.index("first"))
    runs.prepare("unchanged", runs.index("unchanged", repeats=REPEATS))
    runs.verify()
    draw_images(runs.source, range(images, images + added))
    runs.prepare("added", runs.index("added"))
    return {"images": images, "added": added, **runs.figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_results(run_all(Path(folder), images=arguments.images), arguments.json)


if __name__ == "__main__":
    main()
