"""imagemill's own pipeline over its image store, in the memory settings of `imagemill train`. Batches are uint8.

The store is made once, in the shared home, by whichever of these contestants starts first. All photos are in the train split.
"""

from __future__ import annotations

import shutil
import statistics
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contestants import Measure, Settings, measure_endless, measure_passes
from pipelines.allocator import keep_freed_memory

RESUME_STEPS = (10, 100_000)
_REPEATS = 9


def build_warm(settings: Settings, *, augment: dict[str, Any], as_float: bool = False) -> Measure:
    """Epochs after the first; `as_float` adds the cast to float32 that the model's input does otherwise."""
    keep_freed_memory()
    import tensorflow as tf

    examples, reader = _read(settings, Path(settings.home))
    dataset = _open(settings, reader, examples, augment=augment)
    if as_float:
        dataset = dataset.map(lambda images, labels: (tf.cast(images, tf.float32), labels), num_parallel_calls=2).prefetch(2)
    batches, steps = iter(dataset), -(-len(reader) // settings.batch)
    return lambda seconds: measure_endless(batches, steps=steps, seconds=seconds)


def build_first_epoch(settings: Settings) -> Measure:
    """A new home each time: `prepare` (decode, resize, store), then one pass without augmentation."""
    keep_freed_memory()
    _index(settings)

    def measure(_: float) -> dict[str, float]:
        with TemporaryDirectory(dir=Path(settings.home).parent) as folder:
            shutil.copytree(Path(settings.home) / "artifacts" / "ingest", Path(folder) / "artifacts" / "ingest")

            def first_epoch() -> Any:
                examples, reader = _read(settings, Path(folder))
                dataset = _open(settings, reader, examples, augment={"where": "none"})
                return islice(dataset, -(-len(reader) // settings.batch))

            return measure_passes(first_epoch, seconds=0)

    return measure


def build_resume(settings: Settings) -> Measure:
    """Seconds to the first batch, the dataset built anew each time, starting early and late in a run."""
    keep_freed_memory()
    examples, reader = _read(settings, Path(settings.home))

    def measure(_: float) -> dict[str, float]:
        seconds: dict[int, list[float]] = {step: [] for step in RESUME_STEPS}
        for _ in range(_REPEATS):
            for step, taken in seconds.items():
                started = time.monotonic()
                next(iter(_open(settings, reader, examples, augment={}, start_step=step)))
                taken.append(time.monotonic() - started)
        return {f"seconds_to_step_{step}": statistics.median(taken) for step, taken in seconds.items()}

    return measure


def build_draw(settings: Settings, *, augment: dict[str, Any]) -> Measure:
    """Milliseconds of drawing a batch's random numbers, and of warping it by them, on one core."""
    import numpy as np

    from pipelines.augment.philox import DrawKey, image_ids
    from pipelines.augment.policy import build_policy
    from pipelines.config import AugmentConfig

    examples, reader = _read(settings, Path(settings.home))
    policy, ids = build_policy(AugmentConfig(**augment)), image_ids(examples.digests)[: settings.batch]
    images = reader.gather(np.arange(settings.batch))

    def measure(_: float) -> dict[str, float]:
        seconds: dict[str, list[float]] = {"draw": [], "warp": []}
        for epoch in range(20 * _REPEATS):
            started = time.monotonic()
            numbers = policy.sample(DrawKey(1, epoch, ids), side_px=settings.size)
            drawn = time.monotonic()
            policy.apply(images, numbers)
            seconds["draw"].append(drawn - started)
            seconds["warp"].append(time.monotonic() - drawn)
        return {f"milliseconds_{name}": 1000 * statistics.median(taken) for name, taken in seconds.items()}

    return measure


def _open(settings: Settings, reader: Any, examples: Any, *, augment: dict[str, Any], start_step: int = 0) -> Any:
    from pipelines.augment.philox import image_ids
    from pipelines.config import AugmentConfig
    from pipelines.data.batches import build_train_dataset

    return build_train_dataset(
        reader,
        examples.labels,
        image_ids=image_ids(examples.digests),
        num_classes=2,
        batch_size=settings.batch,
        augment=AugmentConfig(**augment),
        seed=1,
        start_step=start_step,
    )


def _read(settings: Settings, home: Path) -> Any:
    """Examples and a reader of all photos, decoded into the store of `home` where they are not there yet."""
    from pipelines.config import StoreConfig
    from pipelines.data.prepare import prepare, read_examples

    index, store = _index(settings), StoreConfig()
    prepared = prepare(home, Path(settings.folder), index, image_size=settings.size, resize="crop", store=store)
    return read_examples(home, prepared, "train")


def _index(settings: Settings) -> Any:
    """The index of the photos, all of them in the train split; made once and published in the shared home."""
    from pipelines.config import Recipe
    from pipelines.contracts import ImageIndex
    from pipelines.slices import ingest_slice
    from pipelines.sources.ingest import ingest, publish_index
    from pipelines.sources.scan import scan_source
    from pipelines.store.artifacts import artifact_path
    from pipelines.store.index import read_index, usable

    home, root = Path(settings.home), Path(settings.folder)
    record = home / "index.json"
    if record.exists():
        return ImageIndex.model_validate_json(record.read_bytes())
    drawn = ingest(home, root, scan_source(home, root), config=ingest_slice(Recipe(), dataset="benchmark"))
    rows = read_index(artifact_path(home, drawn.artifact) / "index.parquet")
    index = publish_index(home, drawn.classes, [{**row, "split": "train"} for row in usable(rows)])
    record.write_text(index.model_dump_json())
    return index
