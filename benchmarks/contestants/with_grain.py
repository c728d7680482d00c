"""google/grain over files that Pillow decodes, in threads or in worker processes. Batches are uint8 [B, S, S, 3]."""

from __future__ import annotations

from typing import Any

import grain

from benchmarks.contestants import Measure, Settings, measure_endless
from benchmarks.contestants.photos import list_photos, load_photo, to_array


def build(settings: Settings, *, workers: int) -> Measure:
    """With grain's own threads where there are no workers."""
    photos = list_photos(settings.folder)

    def load(photo: tuple[str, int]) -> tuple[Any, int]:
        path, label = photo
        return to_array(load_photo(path, settings.size)), label

    images = grain.MapDataset.source(photos).seed(1).shuffle().repeat().map(load)
    dataset = images.to_iter_dataset().batch(settings.batch)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    batches = iter(dataset)
    steps = -(-len(photos) // settings.batch)
    return lambda seconds: measure_endless(batches, steps=steps, seconds=seconds)
