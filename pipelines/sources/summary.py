"""What there is to say about a source before any training. Imports no TensorFlow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.store.index import usable


def summarise(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Findings for check.json, from rows of the index whose splits are still those of the folders, or null.

    `duplicates` are groups of equal or near-equal images, `leaks` those that lie in several split folders, `conflicts`
    those that lie in several classes.
    """
    good, duplicates = usable(rows), _duplicates(rows)
    sides = sorted(min(row["width"], row["height"]) for row in good)
    return {
        "files": len(rows),
        "bad_files": [{"path": row["path"], "reason": row["reason"]} for row in rows if row["status"] == "bad"],
        "classes": {name: sum(row["label"] == name for row in good) for name in classes},
        "formats": dict(Counter(row["format"] for row in good)),
        "bytes": sum(row["bytes"] for row in good),
        "shorter_side_px": {"smallest": sides[0], "median": sides[len(sides) // 2], "largest": sides[-1]} if sides else None,
        "duplicates": [_paths(members) for members in duplicates],
        "leaks": [_paths(members) for members in duplicates if len({row["split"] for row in members}) > 1],
        "conflicts": _conflicts(duplicates),
    }


def find_conflicts(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Paths of equal or near-equal images that lie in several classes, group by group."""
    return _conflicts(_duplicates(rows))


def _conflicts(duplicates: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    return [_paths(members) for members in duplicates if len({row["label"] for row in members}) > 1]


def _duplicates(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in usable(rows):
        groups[row["group"]].append(row)
    return [members for members in groups.values() if len(members) > 1]


def _paths(members: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["path"] for row in members]
