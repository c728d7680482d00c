"""The sticky split: stable when images come and go, groups kept together, no class left out."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.sources.splits import SplitItem, assign_splits, extend_ledger, read_ledger

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def items(numbers: list[int], *, classes: int = 2, group_size: int = 1) -> list[SplitItem]:
    return [
        SplitItem(sha256(str(number).encode()).hexdigest(), f"class {number // group_size % classes}", number // group_size)
        for number in numbers
    ]


def assign(chosen: list[SplitItem], assigned: dict[str, str] | None = None, seed: int = 1) -> dict[str, str]:
    splits = assign_splits(chosen, fractions=FRACTIONS, seed=seed, assigned=assigned or {})
    return {item.sha256: split for item, split in zip(chosen, splits, strict=True)}


def test_the_fractions_are_met() -> None:
    shares = Counter(assign(items(list(range(20_000)))).values())
    assert {name: pytest.approx(count / 20_000, abs=0.01) for name, count in shares.items()} == FRACTIONS


@given(st.integers(3, 300), st.integers(0, 50))
def test_each_class_has_its_share_in_whole_images(count: int, seed: int) -> None:
    counts = Counter(assign(items(list(range(count)), classes=1), seed=seed).values())
    for name, fraction in FRACTIONS.items():
        assert counts[name] == 1 or abs(counts[name] - fraction * count) < (1 if count >= 10 else 2)


def test_a_class_that_grows_keeps_to_its_share_while_nobody_moves() -> None:
    before: dict[str, str] = {}
    for count in range(12, 120, 5):
        after = assign(items(list(range(count)), classes=1), assigned=before)
        assert {digest: after[digest] for digest in before} == before
        counts, before = Counter(after.values()), after
        for name, fraction in FRACTIONS.items():
            assert abs(counts[name] - fraction * count) <= 1


def test_few_images_are_drawn_otherwise_than_by_their_hash_alone() -> None:
    """So that a lost ledger costs little."""
    small, large = items(list(range(1000)), classes=1), items(list(range(1200)), classes=1)
    first, second = assign(small), assign(large)
    assert sum(first[item.sha256] != second[item.sha256] for item in small) < 40


def test_what_was_far_from_its_share_comes_nearer_as_images_come() -> None:
    chosen = items(list(range(60)), classes=1)
    assigned = {item.sha256: "train" if number else "test" for number, item in enumerate(chosen[:20])}
    counts = Counter(assign(chosen, assigned=assigned).values())
    assert counts == {"train": 48, "validation": 6, "test": 6}


def test_groups_of_copies_move_whole_and_only_where_they_fit() -> None:
    chosen = items(list(range(100)), classes=1, group_size=7)
    counts = Counter(assign(chosen).values())
    assert counts["validation"] % 7 in (0, 2)  # one group holds the last two images
    assert all(abs(counts[name] - 100 * fraction) <= 7 for name, fraction in FRACTIONS.items())


def test_another_seed_draws_another_split() -> None:
    chosen = items(list(range(100)))
    assert assign(chosen, seed=1) != assign(chosen, seed=2)


@given(
    st.lists(st.integers(0, 400), min_size=12, max_size=60, unique=True),
    st.lists(st.integers(401, 999), max_size=60, unique=True),
)
def test_earlier_images_never_move_when_others_come(first: list[int], more: list[int]) -> None:
    try:
        before = assign(items(first))
    except InputError:
        return  # a class with fewer than three images
    after = assign(items([*more, *first]), assigned=before)
    assert {digest: after[digest] for digest in before} == before
    assert set(after.values()) == set(FRACTIONS)


@given(st.lists(st.integers(0, 300), min_size=60, max_size=120, unique=True), st.randoms())
def test_the_order_of_images_means_nothing(numbers: list[int], random: object) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    try:
        assert assign(items(numbers)) == assign(items(shuffled))
    except InputError:
        return


def test_a_group_shares_a_split_and_follows_the_member_that_was_there_before() -> None:
    chosen = items(list(range(90)), group_size=3)
    splits = assign(chosen)
    by_group: dict[int, set[str]] = {}
    for item in chosen:
        by_group.setdefault(item.group, set()).add(splits[item.sha256])
    assert all(len(found) == 1 for found in by_group.values())
    old, new = chosen[0], chosen[1]
    for split in FRACTIONS:
        assert assign(chosen, assigned={old.sha256: split})[new.sha256] == split


def test_each_class_of_three_images_has_one_in_each_split() -> None:
    for start in range(0, 300, 3):
        chosen = [SplitItem(sha256(str(n).encode()).hexdigest(), "only", n) for n in range(start, start + 3)]
        assert sorted(assign(chosen).values()) == ["test", "train", "validation"]


def test_a_class_of_copies_can_not_be_split() -> None:
    chosen = [SplitItem(sha256(str(n).encode()).hexdigest(), "copies", 0) for n in range(30)]
    with pytest.raises(InputError, match="'copies' can't be shared out among 3 splits: its 30 images are 1 group"):
        assign(chosen)


def test_a_class_whose_test_images_are_gone_says_so_instead_of_moving_others() -> None:
    chosen = [SplitItem(sha256(str(n).encode()).hexdigest(), "only", n) for n in range(9)]
    assigned = {item.sha256: "train" if number else "validation" for number, item in enumerate(chosen)}
    with pytest.raises(InputError, match=r"class 'only' has no image left for `test`.*`split\.seed`"):
        assign(chosen, assigned=assigned)


def test_the_ledger_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    assert read_ledger(path) == {}
    extend_ledger(path, {"a": "train", "b": "test"})
    extend_ledger(path, {"b": "train", "c": "validation"})
    assert read_ledger(path) == {"a": "train", "b": "test", "c": "validation"}
