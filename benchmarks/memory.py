"""How much memory of its own a process needs to read batches of a large image store: a limit that it must not cross.

A store of random pixels is written to a temporary folder. A child process then reads whole epochs of it as training does,
augmentation included, while its resident anonymous memory (RssAnon of /proc/PID/status: what is neither file nor page
cache) is looked at a hundred times a second; a child that crosses the limit is ended.

    python -m benchmarks.memory --images 200000 --size 64 --json benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import write_results

SECONDS_BETWEEN_LOOKS = 0.01
CLASSES = tuple("abcdefghij")


def write_store(home: Path, *, images: int, size: int, layout: Any = "decoded") -> Path:
    """Writes a store of random images, all of the training split; returns the file of its descriptor."""
    import numpy as np
    import pyarrow as pa

    from pipelines.data.prepare import publish_prepared, store_folder
    from pipelines.store.images import image_store
    from pipelines.store.layouts import pack_row
    from pipelines.store.rows import ImageRow, fill

    def decode(digests: list[str]) -> Iterator[ImageRow]:
        rng = np.random.default_rng(0)
        for digest in digests:
            yield ImageRow(digest, pack_row(rng.integers(0, 256, (size, size, 3), np.uint8), layout=layout), served=True)

    kind = {"image_size": size, "resize": "crop", "layout": layout}
    store = image_store(home, home / store_folder(**kind), image_size=size, layout=layout)
    digests = pa.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(images)])
    places = fill(store, digests, decode)
    labels = [CLASSES[number % len(CLASSES)] for number in range(images)]
    columns = {
        "path": [f"{label}/{number:06d}.jpg" for number, label in enumerate(labels)],
        "sha256": digests,
        "label": labels,
        "split": ["train"] * images,
        "format": ["JPEG"] * images,
        "mode": ["RGB"] * images,
    }
    prepared = publish_prepared(home, pa.table(columns), places, classes=CLASSES, **kind)
    descriptor = home / "prepared.json"
    descriptor.write_text(prepared.model_dump_json())
    return descriptor


def read_epochs(descriptor: Path, epochs: int) -> None:
    """Reads whole epochs of training batches, in this process."""
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()  # as the command does
    from pipelines.augment.philox import image_ids
    from pipelines.config import AugmentConfig
    from pipelines.contracts import PreparedImages
    from pipelines.data.batches import build_train_dataset, steps_per_epoch
    from pipelines.data.prepare import read_examples

    prepared = PreparedImages.model_validate_json(descriptor.read_bytes())
    examples, reader = read_examples(descriptor.parent, prepared, "train")
    batches = build_train_dataset(
        reader,
        examples.labels,
        image_ids=image_ids(examples.table["sha256"]),
        num_classes=len(CLASSES),
        batch_size=32,
        augment=AugmentConfig(),
        seed=1,
    )
    for _ in batches.take(epochs * steps_per_epoch(len(examples), 32)):
        pass


def measure(descriptor: Path, *, epochs: int, limit_mib: float) -> float:
    """The most anonymous memory, MiB, that a child process needs to read a store.

    Raises:
        SystemExit: it crossed the limit, or failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--read", str(descriptor), "--epochs", str(epochs)]
    peak = 0.0
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            peak = max(peak, _anonymous_mib(child.pid))
            if peak > limit_mib:
                child.kill()
                raise SystemExit(f"the child has {peak:.0f} MiB of anonymous memory; the limit is {limit_mib:g}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS_BETWEEN_LOOKS)
        if child.returncode != 0:
            raise SystemExit(f"the child failed (exit {child.returncode})")
    return peak


def _anonymous_mib(process_id: int) -> float:
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=64, help="side of the images, px")
    parser.add_argument("--layout", choices=["decoded", "encoded"], default="decoded")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit-mib", type=float, default=1024)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_epochs(arguments.read, arguments.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        descriptor = write_store(home, images=arguments.images, size=arguments.size, layout=arguments.layout)
        store_mib = sum(path.stat().st_size for path in home.rglob("*.arrow")) / 2**20
        peak = measure(descriptor, epochs=arguments.epochs, limit_mib=arguments.limit_mib)
    figures = {"images": arguments.images, "store_mib": store_mib, "limit_mib": arguments.limit_mib}
    write_results({**figures, "peak_anonymous_mib": peak}, arguments.json)


if __name__ == "__main__":
    main()
