"""Near-equal images found by their perceptual hashes, without comparing all pairs. Imports no TensorFlow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.sources.examine import NEAR_EQUAL_BITS

_GROUPS = 3  # of bands; see `_iterate_keys`
_WIDEST_BAND = 31  # bits, so that two bands fit into an int64


def near_equal_groups(hashes: Sequence[str], *, max_bits: int = NEAR_EQUAL_BITS) -> NDArray[np.int64]:
    """Groups items whose hashes differ in at most `max_bits` bits, directly or through other items.

    100,000 hashes of 256 bits take 1 s on one core, and no longer where most are equal or near-equal.

    Args:
        hashes: hexadecimal strings of one length.
        max_bits: largest Hamming distance of a pair, in bits.

    Returns:
        int64 [n]: the group of each item, which is the index of the group's first member.

    Raises:
        ValueError: the strings differ in length, or are not hexadecimal.
    """
    if not hashes:
        return np.zeros(0, np.int64)
    codes, inverse = np.unique(_parse(hashes), axis=0, return_inverse=True)
    labels = np.arange(len(codes))
    words = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8))).view(np.uint64)
    for key in _iterate_keys(np.unpackbits(codes, axis=1), max_bits):
        labels = _link_equal_keys(words, key, labels, max_bits)
    of_item = labels[inverse.ravel()]
    first = np.full(len(codes), len(hashes), np.int64)
    np.minimum.at(first, of_item, np.arange(len(hashes)))
    return first[of_item]


def _parse(hashes: Sequence[str]) -> NDArray[np.uint8]:
    """uint8 [n, bytes]."""
    lengths = {len(text) for text in hashes}
    if len(lengths) > 1:
        raise ValueError(f"`hashes` must be equally long; received lengths {sorted(lengths)}")
    data = b"".join(map(bytes.fromhex, hashes))
    return np.frombuffer(data, np.uint8).reshape(len(hashes), -1)


def _iterate_keys(bits: NDArray[np.uint8], max_bits: int) -> Iterator[NDArray[np.int64]]:
    """Keys (int64 [n]) such that two codes (uint8 [n, bits]) within `max_bits` agree in at least one of them.

    The bits are dealt out to `max_bits` + 4 bands. The differing bits spoil at most `max_bits` of them, so four bands
    agree, and two of those four lie in the same one of three groups: the pairs of bands within groups are the keys. For
    256 bits and 16 that is 57 keys of 25 bits, where single bands would be 17 of 15 bits: for 100,000 random codes 100
    pairs a key to compare in place of 150,000, and far less trouble from bands that many images share.
    """
    bands = max(max_bits + _GROUPS + 1, -(-bits.shape[1] // _WIDEST_BAND))
    values = []
    for band in range(bands):
        chosen = bits[:, band::bands].astype(np.int64)
        values.append(chosen @ (1 << np.arange(chosen.shape[1], dtype=np.int64)))
    for group in range(_GROUPS):
        for first, second in itertools.combinations(values[group::_GROUPS], 2):
            yield first << _WIDEST_BAND | second


def _link_equal_keys(
    words: NDArray[np.uint64], key: NDArray[np.int64], labels: NDArray[np.int64], max_bits: int
) -> NDArray[np.int64]:
    """Labels after joining those of all near-equal pairs with equal keys.

    Pairs are taken at growing distance in the sorted order. Runs of equal keys that have become one label are left out as
    early as possible, so that a thousand frames of one scene do not cost half a million comparisons per key.
    """
    order, distance = np.argsort(key), 0
    near_pairs: list[NDArray[np.int64]] = []
    left = np.zeros(0, np.int64)
    while True:
        if distance & (distance - 1) == 0:  # 0, 1, 2, 4, 8, ...
            labels, near_pairs = _join(labels, near_pairs), []
            order = _keep_mixed_runs(order, key, labels)
            left = np.arange(len(order))
        distance += 1
        left = left[left + distance < len(order)]
        left = left[key[order[left]] == key[order[left + distance]]]
        if not left.size:
            return _join(labels, near_pairs)
        pairs = np.stack([order[left], order[left + distance]])
        pairs = pairs[:, labels[pairs[0]] != labels[pairs[1]]]
        bits = np.bitwise_count(words[pairs[0]] ^ words[pairs[1]]).sum(axis=1, dtype=np.int64)
        near_pairs.append(pairs[:, bits <= max_bits])


def _keep_mixed_runs(order: NDArray[np.int64], key: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of codes sorted by key, those whose key is shared with a code of another label."""
    if not order.size:
        return order
    starts = np.flatnonzero(np.diff(key[order], prepend=key[order[0]] - 1))
    lowest = np.minimum.reduceat(labels[order], starts)
    highest = np.maximum.reduceat(labels[order], starts)
    is_mixed: NDArray[np.bool_] = np.repeat(lowest != highest, np.diff(starts, append=len(order)))
    return order[is_mixed]


def _join(labels: NDArray[np.int64], pairs: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Gives both members of each pair, and all that already share their labels, one label."""
    left, right = labels[np.concatenate([*pairs, np.zeros((2, 0), np.int64)], axis=1)]
    if not left.size:
        return labels
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(len(labels), len(labels)))
    joined = np.asarray(connected_components(graph, directed=False)[1], np.int64)
    return joined[labels]
