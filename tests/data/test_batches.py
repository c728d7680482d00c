"""Batches over the image store: every example once per epoch, and a pure function of seed, epoch and step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipelines.config import AugmentConfig
from pipelines.contracts import StoreLayout
from pipelines.data.batches import build_plain_dataset, build_train_dataset, examples_of_step, own_errors, steps_per_epoch
from pipelines.data.order import Worker
from pipelines.errors import RunError
from pipelines.store.images import image_store, read_images
from pipelines.store.layouts import pack_row
from pipelines.store.rows import ImageRow, RowReader, fill

EXAMPLES, SIZE = 21, 8
LABELS = np.arange(EXAMPLES, dtype=np.int64)
IDS = np.arange(EXAMPLES, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
OFF = AugmentConfig(where="none")


def open_reader(home: Path, layout: StoreLayout) -> RowReader:
    store = image_store(home, home / "images", image_size=SIZE, layout=layout)
    pixels = np.random.default_rng(0).integers(0, 256, (EXAMPLES, SIZE, SIZE, 3), np.uint8)
    digests = pa.array([str(number) for number in range(EXAMPLES)])
    rows = [ImageRow(digest, pack_row(pixels[int(digest)], layout=layout), served=True) for digest in digests.to_pylist()]
    return read_images(home / "images", fill(store, digests, lambda _: rows), image_size=SIZE, layout=layout)


@pytest.fixture(params=["decoded", "encoded"])
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> RowReader:
    return open_reader(tmp_path, request.param)


def take(reader: RowReader, steps: int, **options: Any) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    settings = {"image_ids": IDS, "num_classes": EXAMPLES, "batch_size": 4, "augment": OFF, "seed": 1, **options}
    return list(build_train_dataset(reader, LABELS, **settings).take(steps).as_numpy_iterator())


def test_each_epoch_shows_every_example_once_with_its_label(reader: RowReader) -> None:
    steps = steps_per_epoch(EXAMPLES, 4)
    batches = take(reader, 2 * steps)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 1] * 2
    for epoch in (batches[:steps], batches[steps:]):
        assert sorted(np.concatenate([labels for _, labels in epoch])) == list(range(EXAMPLES))
    for images, labels in batches:
        np.testing.assert_array_equal(images, reader.gather(labels))


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0, 0), (0.3, 0), (0, 1.0), (0.3, 1.0)])
def test_the_examples_of_a_step_can_be_named_without_reading_one(
    tmp_path: Path, sampling: Any, mixup: float, cutmix: float
) -> None:
    options: dict[str, Any] = {"augment": AugmentConfig(mixup=mixup, cutmix=cutmix), "sampling": sampling}
    batches = take(open_reader(tmp_path, "decoded"), 2 * steps_per_epoch(EXAMPLES, 4), **options)
    for step, (_, labels) in enumerate(batches):
        shown, mixed_with = examples_of_step(step, LABELS, image_ids=IDS, num_classes=EXAMPLES, batch_size=4, seed=1, **options)
        if mixed_with is None:
            np.testing.assert_array_equal(labels, shown)  # each example is its own class
            continue
        for row, example, partner in zip(labels, shown, mixed_with, strict=True):
            assert row[[example, partner]].sum() == pytest.approx(1 + (example == partner))
            assert set(np.flatnonzero(row)) <= {example, partner}


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_any_step_can_be_started_at_without_those_before(reader: RowReader, sampling: str) -> None:
    options: dict[str, Any] = {"augment": AugmentConfig(), "sampling": sampling}
    steps, start = 3 * steps_per_epoch(EXAMPLES, 4), 9
    whole, late = take(reader, steps, **options), take(reader, steps - start, **options, start_step=start)
    for (images, labels), (late_images, late_labels) in zip(whole[start:], late, strict=True):
        np.testing.assert_array_equal(labels, late_labels)
        np.testing.assert_array_equal(images, late_images)


def test_augmentation_does_not_depend_on_the_batch_size_but_on_epoch_and_seed(reader: RowReader) -> None:
    def by_label(**options: Any) -> dict[int, NDArray[np.uint8]]:
        batches = take(reader, steps_per_epoch(EXAMPLES, options["batch_size"]), augment=AugmentConfig(), **options)
        return {int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)}

    small, large = by_label(batch_size=2), by_label(batch_size=7)
    for label in range(EXAMPLES):
        np.testing.assert_array_equal(small[label], large[label])
    for other in (by_label(batch_size=7, start_step=steps_per_epoch(EXAMPLES, 7)), by_label(batch_size=7, seed=2)):
        assert any((other[label] != large[label]).any() for label in range(EXAMPLES))


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_images_come_with_soft_labels_and_do_not_depend_on_the_batch_size(reader: RowReader, mixing: Any) -> None:
    def whole_epoch(batch_size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        steps = steps_per_epoch(EXAMPLES, batch_size)
        batches = take(reader, steps, batch_size=batch_size, augment=AugmentConfig(**mixing))
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])

    (images, labels), (others, other_labels) = whole_epoch(2), whole_epoch(7)
    np.testing.assert_array_equal(images, others)
    np.testing.assert_array_equal(labels, other_labels)
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert (np.count_nonzero(labels, axis=1) == 2).sum() > EXAMPLES / 2


def test_images_are_left_to_the_model_where_the_recipe_says_so(reader: RowReader) -> None:
    for images, labels in take(reader, 3, augment=AugmentConfig(where="model")):
        np.testing.assert_array_equal(images, reader.gather(labels))


def test_the_plain_dataset_is_in_order_and_unchanged(reader: RowReader) -> None:
    images = np.concatenate(list(build_plain_dataset(reader, batch_size=8).as_numpy_iterator()))
    np.testing.assert_array_equal(images, reader.gather(np.arange(EXAMPLES)))


def test_a_damaged_row_is_said_in_our_words(tmp_path: Path) -> None:
    reader = open_reader(tmp_path, "encoded")
    (shard,) = (tmp_path / "images").glob("*.arrow")
    content = shard.read_bytes()
    start = content.rindex(b"JFIF") - 6  # of a JPEG
    shard.write_bytes(content[:start] + bytes(6) + content[start + 6 :])  # in place: the map of the file stays
    message = r"\.arrow is damaged \(row \d+ is no image of \d+ px\); remove it and run again$"
    for read in (lambda: list(build_plain_dataset(reader, batch_size=8)), lambda: take(reader, 6)):
        with pytest.raises(RunError, match=message), own_errors():
            read()


def test_a_far_step_comes_as_readily_as_the_first(reader: RowReader) -> None:
    epoch, batch = divmod(10**12, steps_per_epoch(EXAMPLES, 4))
    (far,) = take(reader, 1, start_step=10**12)
    (same,) = take(reader, 1, start_step=epoch * steps_per_epoch(EXAMPLES, 4) + batch)
    np.testing.assert_array_equal(far[1], same[1])
    np.testing.assert_array_equal(far[0], reader.gather(far[1]))


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_workers_together_see_what_one_process_sees_in_larger_batches(reader: RowReader, sampling: str) -> None:
    labels = np.arange(EXAMPLES) // 6
    options: dict[str, Any] = {"image_ids": IDS, "num_classes": 4, "augment": AugmentConfig(), "seed": 1, "sampling": sampling}

    def batches(steps: int, **changes: Any) -> list[Any]:
        dataset = build_train_dataset(reader, labels, **options, **changes)
        return list(dataset.take(steps).as_numpy_iterator())

    whole = batches(4, batch_size=6)
    shares = [batches(4, batch_size=2, worker=Worker(number, 3)) for number in range(3)]
    for step, (images, _) in enumerate(whole):
        together = np.concatenate([share[step][0] for share in shares])
        assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in together)


def test_an_image_that_comes_twice_in_a_balanced_epoch_is_changed_in_two_ways(tmp_path: Path) -> None:
    reader, labels = open_reader(tmp_path, "decoded"), np.array([0] * (EXAMPLES - 1) + [1])
    options: dict[str, Any] = {"image_ids": IDS, "num_classes": 2, "augment": AugmentConfig(), "seed": 1}
    dataset = build_train_dataset(reader, labels, batch_size=EXAMPLES, sampling="balanced", **options)
    ((images, seen),) = dataset.take(1).as_numpy_iterator()
    assert seen.sum() in (EXAMPLES // 2, EXAMPLES // 2 + 1)
    assert len({image.tobytes() for image in images[seen == 1]}) == seen.sum()


def test_a_worker_without_a_share_is_refused(tmp_path: Path) -> None:
    reader = open_reader(tmp_path, "decoded")
    with pytest.raises(ValueError, match=r"share of the 21 examples; received Worker.*: use fewer workers"):
        take(reader, 1, worker=Worker(21, 22))


def test_workers_of_unequal_shares_stay_in_one_epoch(tmp_path: Path) -> None:
    reader = open_reader(tmp_path, "decoded")
    shares = [[labels for _, labels in take(reader, 6, batch_size=5, worker=Worker(number, 2))] for number in range(2)]
    assert [[len(labels) for labels in share] for share in shares] == [[5, 5, 1] * 2, [5, 5, 0] * 2]
    for epoch in (slice(0, 3), slice(3, 6)):
        seen = np.concatenate([labels for share in shares for labels in share[epoch]])
        assert sorted(seen) == list(range(EXAMPLES))
