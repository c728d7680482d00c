"""When a change is announced: from looks at made-up times."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.quiet import Watched, judge_look, read_watched, watched_path, write_watched
from pipelines.sources.source import FolderSource


class Watcher:
    """Looks that take a second each, and a listener that hears at once."""

    def __init__(self, settle_seconds: float) -> None:
        self.settle_seconds = settle_seconds
        self.remembered: Watched | None = None
        self.heard: list[str] = []

    def look(self, digest: str, at: float) -> str:
        self.remembered, verdict = judge_look(
            self.remembered, digest, started=at, ended=at + 1, settle_seconds=self.settle_seconds
        )
        if verdict == "changed":
            self.heard.append(digest)
            self.remembered = self.remembered.model_copy(update={"emitted": digest})
        return verdict


def test_a_quiet_content_is_announced_once() -> None:
    watcher = Watcher(settle_seconds=120)
    assert [watcher.look("a", at) for at in (0, 60, 120, 121, 180)] == ["settling"] * 3 + ["changed", "known"]
    assert watcher.heard == ["a"]


def test_each_change_starts_the_wait_anew() -> None:
    watcher = Watcher(settle_seconds=100)
    verdicts = [watcher.look(digest, at) for at, digest in enumerate(["a", "b", "b", "c", "c", "c"], start=0)]
    assert verdicts == ["settling"] * 6
    assert watcher.look("c", 103) == "settling"
    assert watcher.look("c", 104) == "changed"
    assert watcher.heard == ["c"]


def test_what_was_seen_once_is_never_announced_even_without_a_wait() -> None:
    """It may have been seen while it was being written."""
    watcher = Watcher(settle_seconds=0)
    assert [watcher.look(digest, at) for at, digest in ((0, "half"), (60, "whole"), (120, "whole"))][-1] == "changed"
    assert watcher.heard == ["whole"]


def test_a_content_that_comes_back_is_announced_again() -> None:
    """Who heard of it first may have found the other one, and done nothing."""
    watcher = Watcher(settle_seconds=10)
    verdicts = [watcher.look(digest, at) for at, digest in ((0, "a"), (20, "a"), (30, "b"), (35, "a"), (60, "a"))]
    assert verdicts == ["settling", "changed", "settling", "settling", "changed"]
    assert watcher.heard == ["a", "a"]


def test_what_comes_back_later_is_announced_again() -> None:
    watcher = Watcher(settle_seconds=1)
    for at, digest in enumerate("aabbaa"):
        watcher.look(digest, 10 * at)
    assert watcher.heard == ["a", "b", "a"]


def test_a_clock_that_was_set_back_starts_the_wait_anew() -> None:
    watcher = Watcher(settle_seconds=10)
    assert [watcher.look("a", at) for at in (1_000, 50, 55, 61)] == ["settling"] * 3 + ["changed"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, 50)), max_size=30), st.floats(0, 100))
def test_whatever_is_announced_was_seen_unchanged_for_the_whole_wait(looks: list[tuple[str, float]], wait: float) -> None:
    watcher, at, history, announced = Watcher(wait), 0.0, list[tuple[float, str]](), 0
    for digest, pause in looks:
        at += pause
        heard = len(watcher.heard)
        watcher.look(digest, at)
        history.append((at, digest))
        if len(watcher.heard) > heard:
            since = at
            for moment, seen in reversed(history):
                if seen != digest:
                    break
                since = moment + 1
            assert at - since >= wait
            again = watcher.heard[-2:-1] == [digest]
            assert not again or any(seen != digest for _, seen in history[announced:])
            announced = len(history)


def test_it_is_remembered_for_each_source_and_name_and_damage_is_none(tmp_path: Path) -> None:
    source = FolderSource(tmp_path / "photos")
    paths = {watched_path(tmp_path, source, dataset=name) for name in ("a", "b")}
    paths |= {watched_path(tmp_path, FolderSource(tmp_path / "others"), dataset="a")}
    assert len(paths) == 3
    path = paths.pop()
    assert read_watched(path) is None
    watched = Watched(digest="a", since=12.5, emitted="b")
    write_watched(path, watched)
    assert read_watched(path) == watched
    path.write_text("{")
    assert read_watched(path) is None


@pytest.mark.parametrize("emitted", [None, "a"])
def test_remembering_does_not_depend_on_the_wait(emitted: str | None) -> None:
    before = Watched(digest="a", since=0, emitted=emitted)
    for seconds in (0.0, 1e9):
        assert judge_look(before, "a", started=5, ended=6, settle_seconds=seconds)[0] == before
