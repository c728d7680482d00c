"""The generator against its authors' vectors and TensorFlow's own, and what makes it a pure function of the image."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.augment.philox import DrawKey, Stream, draw_uniforms, image_ids, philox4x32

IDS = np.random.default_rng(1).integers(0, 2**64, 40, np.uint64)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # of the authors' Random123 library
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_it_gives_the_published_words(counter: str, key: str, expected: str) -> None:
    def words(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    low, high = words(key)
    block = philox4x32(np.array(words(counter), np.uint64).reshape(4, 1), key=(low, high))
    assert block.ravel().tolist() == words(expected)


def test_uniform_numbers_are_those_of_tensorflow_s_generator() -> None:
    key = DrawKey(seed=2**32 - 1, epoch=7, image_ids=IDS[:5])
    ours = draw_uniforms(key, [(Stream.ZOOM, 2)])[0]
    for row, name in zip(ours, key.image_ids, strict=True):
        for block in range(2):
            words = tf.raw_ops.StatelessRandomUniformFullIntV2(
                shape=[4],
                key=tf.constant([key.seed | key.epoch << 32], tf.uint64),
                counter=tf.constant([int(name), int(Stream.ZOOM) | block << 32], tf.uint64),
                alg=1,  # Philox
                dtype=tf.uint32,
            )
            np.testing.assert_array_equal(row[4 * block : 4 * block + 4], (words.numpy() + 0.5) / 2**32)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(IDS) - 1), max_size=4), st.permutations(range(len(IDS))))
def test_an_image_s_numbers_do_not_depend_on_the_batch_it_is_in(cuts: list[int], order: list[int]) -> None:
    requests = [(Stream.ROTATION, 1), (Stream.ERASING, 2)]
    whole = draw_uniforms(DrawKey(1, 3, IDS), requests)
    batches = np.split(np.array(order), sorted(cuts))
    for request, numbers in enumerate(whole):
        for batch in batches:
            np.testing.assert_array_equal(draw_uniforms(DrawKey(1, 3, IDS[batch]), requests)[request], numbers[batch])


def test_a_stream_does_not_depend_on_which_others_are_asked_for() -> None:
    key = DrawKey(1, 0, IDS)
    alone = draw_uniforms(key, [(Stream.HUE, 1)])[0]
    among = draw_uniforms(key, [(Stream.ERASING, 2), (Stream.HUE, 1), (Stream.MIXUP, 1)])
    np.testing.assert_array_equal(among[1], alone)
    assert [numbers.shape for numbers in among] == [(len(IDS), 8), (len(IDS), 4), (len(IDS), 4)]
    assert draw_uniforms(key, []) == []


def test_numbers_are_uniform_and_unlike_those_of_neighbours() -> None:
    ids = np.arange(5000, dtype=np.uint64)

    def draw(seed: int, epoch: int, stream: Stream) -> NDArray[np.float64]:
        return draw_uniforms(DrawKey(seed, epoch, ids), [(stream, 1)])[0]

    base = draw(1, 0, Stream.ZOOM)
    assert 0 < base.min() < 0.001
    assert 0.999 < base.max() < 1
    counts = np.histogram(base, bins=20, range=(0, 1))[0]
    assert (((counts - base.size / 20) ** 2) / (base.size / 20)).sum() < 50  # chi squared, 19 degrees: p = 1e-4
    others = [draw(2, 0, Stream.ZOOM), draw(1, 1, Stream.ZOOM), draw(1, 0, Stream.SHEAR), np.roll(base, 1, axis=0)]
    columns = np.concatenate([base, *others], axis=1)
    correlations = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(len(ids))


def test_an_image_is_named_by_the_first_bytes_of_its_digest() -> None:
    ids = image_ids(["00000000000000ff" + 48 * "a", "f" * 64])
    assert ids.dtype == np.uint64
    assert ids.tolist() == [255, 2**64 - 1]
