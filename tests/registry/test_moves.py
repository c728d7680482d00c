"""The history of an alias against what the alias really did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.registry.moves import Move, champions, plan_move, read_moves

VERSION = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["promote", "rollback", "cut off before", "cut off after"]), VERSION),
        st.tuples(st.just("outside"), st.one_of(VERSION, st.none())),
    ),
    max_size=12,
)


def play(steps: list[tuple[str, int | None]]) -> tuple[dict[str, str], list[int | None]]:
    """The tags after some steps, and everything that the alias was, in order."""
    tags: dict[str, str] = {}
    was: list[int | None] = [None]
    for kind, version in steps:
        if version == was[-1]:
            continue
        if kind != "outside":
            planned = Move(kind="rollback" if kind == "rollback" else "promote", version=version, earlier=was[-1])
            key, planned = plan_move(planned, tags)
            assert key > max(tags, default="")
            tags[key] = planned.model_copy(update={"done": kind in ("promote", "rollback")}).model_dump_json()
        if kind != "cut off before":
            was.append(version)
    return tags, was


@given(STEPS)
def test_the_history_says_nothing_that_the_alias_did_not(steps: list[tuple[str, int | None]]) -> None:
    tags, was = play(steps)
    said = [move.version for move in read_moves(tags, was[-1])]
    assert [None, *said][-1] == was[-1]
    rest = iter(was)
    assert all(version in rest for version in said)  # in the same order


@given(STEPS.map(lambda steps: [step for step in steps if step[0] != "outside"]))
def test_the_history_leaves_nothing_out_that_was_done_with_imagemill(steps: list[tuple[str, int | None]]) -> None:
    tags, was = play(steps)
    moves = read_moves(tags, was[-1])
    assert [move.version for move in moves] == was[1:]
    assert all(move.kind != "outside" and move.at for move in moves)


def test_what_other_tools_moved_is_shown_as_such() -> None:
    tags, was = play([("promote", 1), ("outside", 3), ("promote", 2), ("outside", None)])
    assert [(move.kind, move.version) for move in read_moves(tags, was[-1])] == [
        ("promote", 1),
        ("outside", 3),
        ("promote", 2),
        ("outside", None),
    ]


def test_a_tag_that_is_none_of_ours_is_passed_over() -> None:
    assert read_moves({"imagemill.move.1": "[]", "other": "x"}, None) == []


def test_rollbacks_go_further_back_each_time() -> None:
    steps: list[tuple[str, int | None]] = [("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2)]
    for expected, more in (([1, 2], ()), ([1], (("rollback", 1),)), ([1, 3], (("rollback", 1), ("promote", 3)))):
        tags, was = play([*steps, *more])
        assert champions(read_moves(tags, was[-1])) == expected
