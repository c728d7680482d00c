"""The order: each epoch a permutation, no two alike, any place reachable at once; classes equally often where asked."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.data.order import Worker, make_order, shuffled_positions


def order(examples: int, *, seed: int, epoch: int) -> list[int]:
    positions = tf.range(examples, dtype=tf.int64)
    return [int(n) for n in shuffled_positions(positions, seed=seed, epoch=tf.constant(epoch, tf.int64), examples=examples)]


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_each_epoch_is_a_permutation(examples: int, seed: int, epoch: int) -> None:
    assert sorted(order(examples, seed=seed, epoch=epoch)) == list(range(examples))


def test_epochs_and_seeds_differ() -> None:
    numbers = [0, 1, 2, 255, 256, 257, 512, 2**16, 2**31, 2**32 - 1]
    orders = {tuple(order(100, seed=seed, epoch=epoch)) for seed in numbers for epoch in numbers}
    assert len(orders) == 100
    assert len({tuple(order(20, seed=1, epoch=epoch)) for epoch in range(1000)}) == 1000


def count_classes(order: NDArray[np.int64], labels: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """How many examples of class 0 each full batch has."""
    return (labels[order[: len(order) // batch * batch]] == 0).reshape(-1, batch).sum(1)


def pairs(counts: Any) -> Any:
    return (counts * (counts - 1) / 2).sum()


@pytest.mark.parametrize("examples", [1119, 50_000, 65_536, 200_000, 500_000])
def test_batches_are_as_random_as_those_of_a_random_permutation(examples: int) -> None:
    """In how many examples of the first half a batch has, and in how often two that were together are so again."""
    batch, epochs = 32, max(4, 400_000 // examples)
    labels, positions = (np.arange(examples) >= examples // 2).astype(np.int64), tf.range(examples, dtype=tf.int64)
    orders = [
        shuffled_positions(positions, seed=1, epoch=tf.constant(epoch, tf.int64), examples=examples).numpy()
        for epoch in range(epochs)
    ]
    counts = np.stack([count_classes(order, labels, batch) for order in orders])
    expected = batch / 4 * (examples - batch) / (examples - 1)
    assert counts.var() == pytest.approx(expected, abs=4 * expected * np.sqrt(2 / counts.size))
    batch_of = np.empty((epochs, examples), np.int64)
    for epoch, order in enumerate(orders):
        batch_of[epoch, order] = np.arange(examples) // batch
    again = [
        pairs(np.unique(before * examples + after, return_counts=True)[1]) for before, after in itertools.pairwise(batch_of)
    ]
    expected = pairs(np.bincount(batch_of[0])) ** 2 / (examples * (examples - 1) / 2)
    assert np.mean(again) == pytest.approx(expected, abs=4 * np.sqrt(expected / len(again)))


def test_balanced_batches_are_as_random_as_shuffled_ones() -> None:
    labels, batch = np.repeat([0, 1], 32_768), 32
    order, positions = make_order(labels, sampling="balanced", seed=1), tf.range(len(labels), dtype=tf.int64)
    drawn = [order(positions, tf.constant(epoch, tf.int64))[0].numpy() for epoch in range(6)]
    counts = np.stack([count_classes(each, labels, batch) for each in drawn])
    expected = batch / 4 * (len(labels) - batch) / (len(labels) - 1)
    assert counts.var() == pytest.approx(expected, abs=4 * expected * np.sqrt(2 / counts.size))


def test_any_stretch_can_be_computed_alone_and_in_a_graph() -> None:
    whole = order(1000, seed=7, epoch=3)

    @tf.function
    def stretch(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        return shuffled_positions(tf.range(start, stop), seed=7, epoch=tf.constant(3, tf.int64), examples=1000)

    part = stretch(tf.constant(500, tf.int64), tf.constant(532, tf.int64))
    assert [int(n) for n in part] == whole[500:532]


def test_every_example_is_equally_likely_to_come_first() -> None:
    first = [order(4, seed=1, epoch=epoch)[0] for epoch in range(2000)]
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 2000, 0.25, atol=0.04)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 8), st.sampled_from(["shuffle", "balanced"]))
def test_workers_share_an_epoch_between_them(examples: int, workers: int, sampling: str) -> None:
    order = make_order(np.arange(examples) % 3, sampling=sampling, seed=1)  # type: ignore[arg-type]
    whole = order(tf.range(examples, dtype=tf.int64), tf.constant(2, tf.int64))[0].numpy()
    team = [Worker(number, workers) for number in range(min(workers, examples))]
    positions = [worker.positions(tf.range(worker.share(examples), dtype=tf.int64)).numpy() for worker in team]
    assert sorted(np.concatenate(positions)) == list(range(examples))
    assert max(map(len, positions)) - min(map(len, positions)) <= 1
    assert sum(Worker(number, workers).share(examples) for number in range(workers)) == examples
    for own in positions:
        np.testing.assert_array_equal(order(tf.constant(own, tf.int64), tf.constant(2, tf.int64))[0], whole[own])


@pytest.mark.parametrize(("number", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_a_worker_that_there_is_not_is_refused(number: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"below `workers` .{workers}.; received {number}"):
        Worker(number, workers)


def draw(labels: NDArray[np.int64], *, seed: int, epochs: int) -> tuple[list[list[int]], list[list[int]]]:
    """Examples and showings of some epochs under balanced sampling."""
    order, positions = make_order(labels, sampling="balanced", seed=seed), tf.range(len(labels), dtype=tf.int64)
    drawn = [order(positions, tf.constant(epoch, tf.int64)) for epoch in range(epochs)]
    return [[int(n) for n in chosen] for chosen, _ in drawn], [[int(n) for n in showing] for _, showing in drawn]


classes = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(lambda labels: np.array(labels, np.int64) * 7)


@settings(deadline=None)
@given(classes, st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_balanced_epochs_show_each_class_equally_often_and_starve_no_image(
    labels: NDArray[np.int64], seed: int, epochs: int
) -> None:
    chosen, showings = draw(labels, seed=seed, epochs=epochs)
    present, sizes = np.unique(labels, return_counts=True)
    for epoch in chosen:
        assert len(epoch) == len(labels)
        counts = Counter(labels[epoch].tolist())
        turns = [counts[label] for label in present.tolist()]
        assert max(turns) - min(turns) <= 1
    shown = np.bincount(np.concatenate(chosen), minlength=len(labels))
    for label, size in zip(present, sizes, strict=True):
        of_class = shown[labels == label]
        assert of_class.min() == of_class.sum() // size
        assert of_class.max() == -(-of_class.sum() // size)
    for epoch, showing in zip(chosen, showings, strict=True):
        assert len(set(zip(epoch, showing, strict=True))) == len(labels)
        assert min(showing) >= 0


def test_balanced_epochs_and_seeds_differ_and_a_class_goes_through_its_images_in_many_orders() -> None:
    labels = np.array([0] * 6 + [1] * 40, np.int64)
    orders = {tuple(epoch) for seed in range(3) for epoch in draw(labels, seed=seed, epochs=8)[0]}
    assert len(orders) == 24
    small = [n for epoch in draw(labels, seed=1, epochs=6)[0] for n in epoch if n < 6]
    assert len(small) == 6 * 23
    assert len(Counter(small)) == 6


def test_any_stretch_of_balanced_epochs_can_be_computed_alone_and_in_tf_data() -> None:
    labels = np.arange(90, dtype=np.int64) ** 2 % 5
    order = make_order(labels, sampling="balanced", seed=3)
    whole = draw(labels, seed=3, epochs=4)
    late = tf.data.Dataset.range(70, 85).batch(15).map(lambda positions: order(positions, tf.constant(3, tf.int64)))
    ((chosen, showing),) = late.as_numpy_iterator()
    assert (chosen.tolist(), showing.tolist()) == (whole[0][3][70:85], whole[1][3][70:85])
