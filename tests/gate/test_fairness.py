"""Which test images neither model has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.gate.fairness import find_fair_images
from pipelines.run_folder import read_seen
from pipelines.store.index import write_index


def write_run(folder: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A run folder with an index of (path, label, split, content); contents are near-equal that differ in their last letter."""
    folder.mkdir()
    full = [
        {
            "path": path,
            "sha256": content,
            "label": label,
            "split": split,
            "status": "ok",
            "perceptual_hash": (content[:1].encode().hex() * 32)[:62] + content[-1:].encode().hex(),
        }
        for path, label, split, content in rows
    ]
    write_index(folder / "index.parquet", [*full, {"path": "bad.jpg", "label": "cat", "status": "bad", "reason": "0 bytes"}])
    return folder


def test_images_that_either_model_has_seen_are_left_out_by_name(tmp_path: Path) -> None:
    champion = write_run(
        tmp_path / "champion",
        [("a.jpg", "cat", "train", "A1"), ("old/b.jpg", "cat", "validation", "B1"), ("c.jpg", "cat", "test", "C1")],
    )
    challenger = write_run(
        tmp_path / "challenger",
        [
            ("a.jpg", "cat", "test", "A1"),
            ("b.jpg", "cat", "test", "B1"),
            ("c.jpg", "cat", "test", "C1"),
            ("near a.jpg", "dog", "test", "A3"),
            ("d.jpg", "dog", "test", "D1"),
            ("e.jpg", "dog", "train", "E1"),
            ("copy of e.jpg", "dog", "test", "E1"),
            ("near e.jpg", "dog", "test", "E2"),
        ],
    )
    found = find_fair_images(challenger, champion, near_equal_bits=2)
    assert [image.path for image in found.fair] == ["c.jpg", "d.jpg"]
    near = "it is near-equal to an image that the {} was trained on or chosen by"
    assert found.excluded == {
        "a.jpg": "it was in the train split of the champion",
        "b.jpg": "it was in the validation split of the champion",
        "near a.jpg": near.format("champion"),
        "copy of e.jpg": "it was in the train split of the challenger",
        "near e.jpg": near.format("challenger"),
    }
    assert (found.known, found.relabelled) == (1, {})


def test_what_the_champion_s_own_champion_has_seen_is_left_out_too(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", [("a.jpg", "cat", "train", "A1"), ("b.jpg", "cat", "test", "B1")])
    champion = write_run(tmp_path / "champion", [("d.jpg", "cat", "train", "D1")])
    write_index(champion / "seen.parquet", read_seen(first))  # as a warm start does
    challenger = write_run(
        tmp_path / "challenger", [(f"{name}.jpg", "cat", "test", f"{name.upper()}1") for name in ("a", "b", "d")]
    )
    found = find_fair_images(challenger, champion, near_equal_bits=0)
    assert [image.path for image in found.fair] == ["b.jpg"]
    # The next generation inherits what this one saw, each content once.
    write_index(challenger / "seen.parquet", read_seen(champion))
    assert sorted(row["sha256"] for row in read_seen(challenger)) == ["A1", "D1"]


def test_a_changed_label_is_named_with_what_it_was(tmp_path: Path) -> None:
    champion = write_run(
        tmp_path / "champion",
        [("cat/a.jpg", "cat", "test", "A1"), ("b.jpg", "cat", "test", "B1"), ("c.jpg", "dog", "test", "B1")],
    )
    challenger = write_run(tmp_path / "challenger", [("dog/a.jpg", "dog", "test", "A1"), ("c.jpg", "dog", "test", "B1")])
    found = find_fair_images(challenger, champion, near_equal_bits=0)
    assert (len(found.fair), found.known, found.relabelled) == (2, 2, {"dog/a.jpg": "cat"})


def test_images_that_were_written_anew_are_known_and_newcomers_that_resemble_known_ones_are_not(tmp_path: Path) -> None:
    champion = write_run(
        tmp_path / "champion",
        [("a.jpg", "cat", "test", "A1"), ("b.jpg", "cat", "test", "B1"), ("c.jpg", "dog", "test", "C1")],
    )
    challenger = write_run(
        tmp_path / "challenger",
        [
            ("a.png", "cat", "test", "A2"),
            ("b.png", "dog", "test", "B2"),
            ("c.jpg", "dog", "test", "C1"),
            ("another c.jpg", "cat", "test", "C2"),
            ("d.jpg", "dog", "test", "D1"),
        ],
    )
    found = find_fair_images(challenger, champion, near_equal_bits=2)
    assert (len(found.fair), found.known) == (5, 3)
    assert (found.unchanged, found.relabelled) == ({"a.png", "c.jpg"}, {"b.png": "cat"})


def test_no_test_images_are_none(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, [("a.jpg", "cat", "validation", "A1")]) for name in ("champion", "challenger")]
    found = find_fair_images(folders[1], folders[0], near_equal_bits=16)
    assert (found.fair, found.excluded) == ((), {})


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    challenger = write_run(tmp_path / "challenger", [("a.jpg", "cat", "test", "A1")])
    with pytest.raises(InputError, match=r"must hold index.parquet; that of '.*nothing' can't be read"):
        find_fair_images(challenger, tmp_path / "nothing", near_equal_bits=16)
