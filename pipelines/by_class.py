"""The examples of a split, class by class: for samplings that treat classes alike, however many images each has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ByClass:
    """Example numbers in the order of their classes; classes without an example are left out.

    Attributes:
        examples: int64 [n], class after class, rising within each.
        starts: int64 [classes], where each class begins in `examples`.
        sizes: int64 [classes], how many each has.
    """

    examples: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def group_by_class(labels: NDArray[np.int64]) -> ByClass:
    """The examples whose labels are given, int64 [n]."""
    examples = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[examples], return_index=True, return_counts=True)
    return ByClass(examples, starts, sizes)
