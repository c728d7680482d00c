"""One digest for the content of a source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.sources.content import content_digest, digest_source
from pipelines.sources.folder import FoundFile
from pipelines.sources.source import FolderSource
from pipelines.sources.states import states_path
from tests.opened import opened_below
from tests.sources.folders import age, write_classes, write_photo


def digest(root: Path, home: Path) -> str:
    return digest_source(home, FolderSource(root))


def test_names_times_and_place_are_no_content(photos: Path, tmp_path: Path) -> None:
    before = digest(photos, tmp_path / "home")
    (photos / "cat" / "003.jpg").rename(photos / "cat" / "renamed.jpg")
    os.utime(photos / "cat" / "004.jpg")
    assert digest(photos, tmp_path / "home") == before
    assert digest(photos.rename(tmp_path / "moved"), tmp_path / "other home") == before


@pytest.mark.parametrize("change", ["add", "remove", "relabel", "alter", "empty class", "damage", "copy"])
def test_everything_else_is(photos: Path, tmp_path: Path, change: str) -> None:
    before = digest(photos, tmp_path / "home")
    path = photos / "cat" / "003.jpg"
    match change:
        case "add":
            write_photo(photos / "dog" / "new.jpg", seed=7)
        case "remove":
            path.unlink()
        case "relabel":
            path.rename(photos / "dog" / "moved.jpg")
        case "alter":
            write_photo(path, seed=7)
        case "empty class":
            (photos / "fox").mkdir()
        case "damage":
            path.write_bytes(b"")
        case "copy":
            (photos / "cat" / "copy.jpg").write_bytes(path.read_bytes())
    assert digest(photos, tmp_path / "home") != before


def test_a_given_split_and_an_unreadable_file_count() -> None:
    file = FoundFile("a.jpg", "cat", None, 1, "abc")
    others = [FoundFile("a.jpg", "cat", "test", 1, "abc"), FoundFile("a.jpg", "cat", None, problem="unreadable: gone")]
    assert len({content_digest(["cat"], [each]) for each in (file, *others)}) == 3


def test_a_second_look_reads_nothing(photos: Path, tmp_path: Path) -> None:
    age(photos)
    first = digest(photos, tmp_path / "home")
    assert states_path(tmp_path / "home", photos, name="photos").exists()
    with opened_below(photos) as opened:
        assert digest(photos, tmp_path / "home") == first
    assert not opened


def test_the_states_are_those_of_a_scan(tmp_path: Path) -> None:
    """Who looked at a folder saves the run after it the reading."""
    from pipelines.sources.scan import scan_source

    root = age(write_classes(tmp_path / "photos", {"cat": 3, "dog": 3}))
    source = FolderSource(root)
    digest(root, tmp_path / "home")
    with opened_below(root) as opened:
        scan_source(tmp_path / "home", root, listed=source.find(), name=source.name)
    assert not opened
