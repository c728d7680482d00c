"""The sticky split: which images train, which choose, which judge, drawn from content hashes.

A group of equal and near-equal images goes to one split, by a hash of its smallest digest: independent of names, order
and of what else is there. What was once assigned is written to a ledger in the home and never moves in later runs of the
same data set.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from pipelines.errors import InputError
from pipelines.store.artifacts import file_in_place


@dataclass(frozen=True)
class SplitItem:
    """One usable image to be assigned: its content digest, class and group of near-equal images."""

    sha256: str
    label: str
    group: int


def assign_splits(
    items: Sequence[SplitItem], *, fractions: Mapping[str, float], seed: int, assigned: Mapping[str, str]
) -> list[str]:
    """Assigns each image to a split.

    A group with members in `assigned` follows the one with the smallest digest; assigned images themselves never move.
    Other groups are drawn: a hash of (seed, smallest digest), uniform in [0, 1), falls into one of the `fractions`. Then the
    new groups of a class whose hashes lie nearest to the next interval move there, until each class has its share in each
    split, in whole images, as far as groups that stay allow; and at least one image in each.

    Args:
        items: the images; two with equal digests may have different labels.
        fractions: of each split to draw, above 0, in a fixed order; they need not sum to 1.
        seed: of the draw.
        assigned: earlier assignments by digest.

    Returns:
        The split of each item.

    Raises:
        InputError: a class has fewer groups of near-equal images than splits.
    """
    members: dict[int, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[item.group].append(item)
    intervals = _intervals(fractions)
    splits: dict[int, str] = {}
    draws: dict[int, float] = {}
    for group, images in members.items():
        known = sorted(image.sha256 for image in images if assigned.get(image.sha256) in fractions)
        if known:
            splits[group] = assigned[known[0]]
            continue
        draws[group] = _uniform(seed, min(image.sha256 for image in images))
        splits[group] = next(name for name, (_, end) in intervals.items() if draws[group] < end)
    _even_out(members, intervals=intervals, splits=splits, draws=draws)
    _fill_empty_splits(items, intervals=intervals, splits=splits, draws=draws)
    return [assigned[item.sha256] if assigned.get(item.sha256) in fractions else splits[item.group] for item in items]


def read_ledger(path: Path) -> dict[str, str]:
    """Earlier assignments, split by digest; empty where there is no ledger yet."""
    if not path.exists():
        return {}
    table = pq.read_table(path)
    return dict(zip(table["sha256"].to_pylist(), table["split"].to_pylist(), strict=True))


@contextmanager
def ledger_lock(path: Path) -> Iterator[None]:
    """Held from reading a ledger to extending it, so that two runs that overlap assign nothing twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield


def extend_ledger(path: Path, assignments: Mapping[str, str]) -> None:
    """Adds assignments to the ledger, under its lock and in one step; those that it already has stay as they are."""
    ledger = read_ledger(path)
    if assignments.keys() <= ledger.keys():
        return
    merged = sorted({**assignments, **ledger}.items())
    columns = {"sha256": [digest for digest, _ in merged], "split": [split for _, split in merged]}
    with file_in_place(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _intervals(fractions: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    total, start = sum(fractions.values()), 0.0
    intervals = {}
    for name, fraction in fractions.items():
        intervals[name] = (start, start + fraction / total)
        start += fraction / total
    last = list(fractions)[-1]
    intervals[last] = (intervals[last][0], 1.0)
    return intervals


def _uniform(seed: int, digest: str) -> float:
    """A number in [0, 1) from the first 53 bits of SHA-256 over the seed and a digest."""
    value = hashlib.sha256(f"{seed} {digest}".encode()).digest()
    return (int.from_bytes(value[:8], "big") >> 11) / 2**53


def _even_out(
    members: Mapping[int, Sequence[SplitItem]],
    *,
    intervals: Mapping[str, tuple[float, float]],
    splits: dict[int, str],
    draws: Mapping[int, float],
) -> None:
    """Moves newly drawn groups, in place, from splits that have more of a class than their share to those that have less.

    Groups of one class only: another class would lose what this one gains.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    movable: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for group, images in members.items():
        for image in images:
            counts[image.label][splits[group]] += 1
        if group in draws and len({image.label for image in images}) == 1:
            movable[images[0].label][splits[group]].append(group)
    for label, of_split in movable.items():
        shares = _whole_shares(sum(counts[label].values()), intervals)
        surplus = {name: counts[label][name] - shares[name] for name in intervals}
        for short, long in itertools.permutations(intervals, 2):
            if not surplus[short] < 0 < surplus[long]:
                continue
            left = [group for group in of_split[long] if splits[group] == long]
            for group in sorted(left, key=lambda group: _distance(draws[group], intervals[short])):
                size = len(members[group])
                if size <= min(-surplus[short], surplus[long]):
                    splits[group] = short
                    surplus[short], surplus[long] = surplus[short] + size, surplus[long] - size


def _whole_shares(images: int, intervals: Mapping[str, tuple[float, float]]) -> dict[str, int]:
    """How many of some images each split should have: fractions in whole numbers by largest remainder, at least one each."""
    exact = {name: images * (end - start) for name, (start, end) in intervals.items()}
    shares = {name: max(1, int(share)) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[: max(0, images - sum(shares.values()))]:
        shares[name] += 1
    shares[max(exact, key=lambda name: exact[name])] += images - sum(shares.values())
    return shares


def _distance(draw: float, interval: tuple[float, float]) -> tuple[float, float]:
    """How far a draw lies from an interval; among equals the smaller draw comes first."""
    return max(interval[0] - draw, draw - interval[1], 0), draw


def _fill_empty_splits(
    items: Sequence[SplitItem],
    *,
    intervals: Mapping[str, tuple[float, float]],
    splits: dict[int, str],
    draws: Mapping[int, float],
) -> None:
    """Moves newly drawn groups, in place, so that each class has at least one in each split."""
    groups_of: dict[str, set[int]] = defaultdict(set)
    for item in items:
        groups_of[item.label].add(item.group)
    for label, groups in sorted(groups_of.items()):
        counts = Counter(splits[group] for group in groups)
        for name, interval in intervals.items():
            if counts[name]:
                continue
            drawn = [group for group in groups if group in draws]
            movable = [group for group in drawn if counts[splits[group]] > 1]
            if not drawn:
                raise InputError(
                    f"class {label!r} has no image left for `{name}`: all of its images have their split, by the source or by"
                    " earlier runs, or are near-equal to such; add images, or draw anew by another `split.seed`"
                )
            if not movable:
                images = sum(item.label == label for item in items)
                raise InputError(
                    f"class {label!r} can't be shared out among {len(intervals)} splits: its {images} images are"
                    f" {len(groups)} groups of equal or near-equal ones; add different images, or lower `split.near_equal_bits`"
                )
            nearest = min(movable, key=lambda group: _distance(draws[group], interval))
            counts[splits[nearest]] -= 1
            counts[name] += 1
            splits[nearest] = name
