"""Batches over the image store: every example once per epoch, and a pure function of seed, epoch and step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.config import AugmentConfig
from pipelines.data.batches import build_plain_dataset, build_train_dataset, steps_per_epoch
from pipelines.store.images import DecodedImage, ImageStore, RowReader, fill

EXAMPLES, SIZE = 21, 8
LABELS = np.arange(EXAMPLES, dtype=np.int64)
OFF = AugmentConfig(where="none")


@pytest.fixture
def reader(tmp_path: Path) -> RowReader:
    store = ImageStore(tmp_path, tmp_path / "images", image_size=SIZE)
    pixels = np.random.default_rng(0).integers(0, 256, (EXAMPLES, SIZE, SIZE, 3), np.uint8)
    digests = [str(number) for number in range(EXAMPLES)]
    places = fill(store, digests, lambda missing: [DecodedImage(d, pixels[int(d)], served=True) for d in missing])
    return RowReader(tmp_path / "images", [places[digest] for digest in digests], image_size=SIZE)


def take(reader: RowReader, steps: int, **options: Any) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    settings = {"batch_size": 4, "augment": OFF, "seed": 1, **options}
    return list(build_train_dataset(reader, LABELS, **settings).take(steps).as_numpy_iterator())


def test_each_epoch_shows_every_example_once_with_its_label(reader: RowReader) -> None:
    steps = steps_per_epoch(EXAMPLES, 4)
    batches = take(reader, 2 * steps)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 1] * 2
    for epoch in (batches[:steps], batches[steps:]):
        assert sorted(np.concatenate([labels for _, labels in epoch])) == list(range(EXAMPLES))
    for images, labels in batches:
        np.testing.assert_array_equal(images, reader.gather(labels))


def test_an_epoch_can_be_started_at_without_those_before(reader: RowReader) -> None:
    augment = AugmentConfig()
    steps = steps_per_epoch(EXAMPLES, 4)
    whole, late = take(reader, 3 * steps, augment=augment), take(reader, steps, augment=augment, start_step=2 * steps)
    for (images, labels), (late_images, late_labels) in zip(whole[2 * steps :], late, strict=True):
        np.testing.assert_array_equal(labels, late_labels)
        np.testing.assert_array_equal(images, late_images)


def test_augmentation_does_not_depend_on_the_batch_size_but_on_epoch_and_seed(reader: RowReader) -> None:
    def by_label(**options: Any) -> dict[int, NDArray[np.uint8]]:
        batches = take(reader, steps_per_epoch(EXAMPLES, options["batch_size"]), augment=AugmentConfig(), **options)
        return {int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)}

    small, large = by_label(batch_size=2), by_label(batch_size=7)
    for label in range(EXAMPLES):
        np.testing.assert_array_equal(small[label], large[label])
    for other in (by_label(batch_size=7, start_step=steps_per_epoch(len(reader), 7)), by_label(batch_size=7, seed=2)):
        assert any((other[label] != large[label]).any() for label in range(EXAMPLES))


def test_the_plain_dataset_is_in_order_and_unchanged(reader: RowReader) -> None:
    images = np.concatenate(list(build_plain_dataset(reader, batch_size=8).as_numpy_iterator()))
    np.testing.assert_array_equal(images, reader.gather(np.arange(EXAMPLES)))
