"""Random numbers as a pure function of (seed, epoch, image): Philox4x32-10, all images of a batch at once.

A counter-based generator has no state that could depend on the batch size, on the number of workers or on where a run was
resumed: block n of a stream is computed from its key and its counter alone.

    key      (seed, epoch)
    counter  (image id: two words, stream, showing and block)

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011). TensorFlow's stateless random ops are the same
generator. NumPy's has to be set up anew for each image and stream: 14 us, where this takes 5 us for three streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Uniforms = NDArray[np.float64]

PER_BLOCK = 4  # numbers that one block of Philox4x32 gives
_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64).reshape(2, 1)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint64).reshape(2, 1)
_WORD = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_SHOWING_SHIFT = np.uint64(16)


@unique
class Stream(IntEnum):
    """Each augmentation's own stream, so that switching one on changes the numbers of no other. Never renumber these."""

    HORIZONTAL_FLIP = 0
    VERTICAL_FLIP = 1
    ROTATION = 2
    ZOOM = 3
    TRANSLATION = 4
    SHEAR = 5
    RANDOM_RESIZED_CROP = 6
    CONTRAST = 7
    BRIGHTNESS = 8
    SATURATION = 9
    HUE = 10
    ERASING = 11
    MIXUP = 12
    CUTMIX = 13
    MIXUP_OR_CUTMIX = 14
    RAND_AUGMENT = 15


@dataclass(frozen=True)
class DrawKey:
    """All that the numbers of a batch depend on.

    Attributes:
        seed: the recipe's, below 2**32.
        epoch: from 0, below 2**32.
        image_ids: uint64 [B], see `image_ids`.
        showings: int64 [B], which tell showings of one image within the epoch apart, from 0 and below 2**16; None: all 0.
    """

    seed: int
    epoch: int
    image_ids: NDArray[np.uint64]
    showings: NDArray[np.int64] | None = None


def image_ids(digests: Sequence[str] | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit name of each image: the first eight bytes of the SHA-256 of its file, given in hexadecimal.

    An image keeps its name, and with it its augmentation, when others join or leave the data set.
    """
    column = digests if isinstance(digests, pa.ChunkedArray) else pa.chunked_array([list(digests)], pa.string())
    # By Arrow, without a Python string for each image.
    start = pc.utf8_slice_codeunits(column, 0, 16).combine_chunks()
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(start)], start), "")[0].as_py()
    return np.frombuffer(bytes.fromhex(joined), ">u8").astype(np.uint64)


def draw_uniforms(key: DrawKey, requests: Sequence[tuple[Stream, int]]) -> list[Uniforms]:
    """Draws what several augmentations need, in one pass over all images.

    Args:
        key: whose numbers.
        requests: (stream, blocks of four numbers) of each augmentation.

    Returns:
        For each request float64 [B, 4 * blocks], uniform in the open interval (0, 1), in steps of 2**-32.
    """
    if not requests:
        return []
    blocks = [(int(stream), block) for stream, count in requests for block in range(count)]
    batch = len(key.image_ids)
    streams = np.array(blocks, np.uint64).reshape(-1, 2).T.repeat(batch, axis=1)
    if key.showings is not None:
        streams[1] += np.tile(key.showings.astype(np.uint64) << _SHOWING_SHIFT, len(blocks))
    words = np.tile(np.stack([key.image_ids & _WORD, key.image_ids >> _SHIFT]), len(blocks))
    bits = philox4x32(np.concatenate([words, streams]), key=(key.seed, key.epoch))
    uniforms = ((bits + 0.5) * 2.0**-32).T.reshape(len(blocks), batch, PER_BLOCK)
    bounds = np.cumsum([count for _, count in requests])[:-1]
    return [np.concatenate(part, axis=1) if len(part) > 1 else part[0] for part in np.split(uniforms, bounds)]


def philox4x32(counters: NDArray[np.uint64], *, key: tuple[int, int]) -> NDArray[np.uint64]:
    """The bijection itself: 32-bit words held in uint64 [4, n] to random words of the same kind, under a key of two words."""
    even, odd = counters[0::2], counters[1::2]
    round_key = np.array(key, np.uint64).reshape(2, 1)
    for _ in range(_ROUNDS):
        product = even * _MULTIPLIERS
        even = (product >> _SHIFT)[::-1] ^ odd ^ round_key
        odd = (product & _WORD)[::-1]
        round_key = (round_key + _WEYL) & _WORD
    return np.stack([even[0], odd[0], even[1], odd[1]])
