"""Groups of near-equal images, against the comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.duplicates import near_equal_groups
from pipelines.sources.examine import NEAR_EQUAL_BITS


def group_by_force(hashes: list[str], max_bits: int) -> list[int]:
    groups = list(range(len(hashes)))
    for i, first in enumerate(hashes):
        for j in range(i):
            if (int(first, 16) ^ int(hashes[j], 16)).bit_count() <= max_bits and groups[i] != groups[j]:
                low, high = sorted((groups[i], groups[j]))
                groups = [low if group == high else group for group in groups]
    return groups


def flip(code: int, positions: list[int]) -> int:
    for position in positions:
        code ^= 1 << position
    return code


@st.composite
def draw_hashes(draw: st.DrawFn) -> list[str]:
    """Hashes around a few centres, so that distances near the limit are common."""
    digits = draw(st.sampled_from([1, 2, 4, 9, 16, 64]).map(lambda n: 2 * n))
    bit = st.integers(0, 4 * digits - 1)
    centres = draw(st.lists(st.integers(0, 16**digits - 1), min_size=1, max_size=4))
    codes = draw(st.lists(st.builds(flip, st.sampled_from(centres), st.lists(bit, max_size=20)), max_size=25))
    return [f"{code:0{digits}x}" for code in codes]


@settings(max_examples=200, deadline=None)
@given(draw_hashes(), st.integers(0, 24))
def test_groups_equal_those_of_all_pairs(hashes: list[str], max_bits: int) -> None:
    groups = near_equal_groups(hashes, max_bits=max_bits)
    assert groups.dtype == np.int64
    assert groups.tolist() == group_by_force(hashes, max_bits)


def random_codes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def flip_bits(codes: np.ndarray, counts: np.ndarray, seed: int = 1) -> np.ndarray:
    """Flips `counts[i]` different random bits of code i."""
    ranks = np.random.default_rng(seed).random((len(codes), 256)).argsort(axis=1).argsort(axis=1)
    return codes ^ np.packbits(ranks < counts[:, None], axis=1)


def test_planted_pairs_among_many() -> None:
    codes = random_codes(20_000)
    distances = np.arange(2_000) % 20
    codes[-2_000:] = flip_bits(codes[:2_000], distances)
    expected = np.arange(20_000)
    near = distances <= NEAR_EQUAL_BITS
    expected[-2_000:][near] = np.arange(2_000)[near]
    np.testing.assert_array_equal(near_equal_groups([code.tobytes().hex() for code in codes]), expected)


def test_many_equal_hashes_and_many_frames_of_a_few_scenes() -> None:
    centres = random_codes(10)
    scene = np.arange(20_000) % 10
    codes = flip_bits(centres[scene], np.arange(20_000) % 7)
    codes[:5_000] = centres[scene[:5_000]]
    np.testing.assert_array_equal(near_equal_groups([code.tobytes().hex() for code in codes]), scene)


def test_chains_are_one_group() -> None:
    links = [f"{(1 << 16 * link) - 1:064x}" for link in range(10)]  # each is 16 bits away from the one before
    assert near_equal_groups([f"{1 << 255:064x}", *links, f"{1 << 255:064x}"]).tolist() == [0, *[0] * 10, 0]
    assert near_equal_groups(links[::2]).tolist() == [0, 1, 2, 3, 4]


def test_no_hashes() -> None:
    assert near_equal_groups([]).shape == (0,)


def test_hashes_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`hashes` must be equally long; received lengths \[2, 4\]"):
        near_equal_groups(["ff", "ffff"])
