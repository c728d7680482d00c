"""Class folders: parity with Keras, and every kind of folder that can't be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import keras
import pytest

from pipelines.config import SplitConfig
from pipelines.errors import InputError, SourceChangedError
from pipelines.sources.folder import (
    check_class_counts,
    count_ignored,
    digest_files,
    find_images,
    image_paths,
    read_unchanged,
)
from tests.sources.folders import write_classes, write_photo

FRACTIONS = SplitConfig()


def test_the_listing_is_that_of_keras(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root", {"b": 2, "a": 3, "C": 1, "empty": 0, ".hidden": 1})
    (root / "a" / "deep" / "deeper").mkdir(parents=True)
    for name in (
        "deep/x.JPG",
        "deep/deeper/y.jpeg",
        "z.Png",
        ".dotted.jpg",
        "sp ace 'quo\"te.jpg",
        "emoji 🐱.jpg",
        "new\nline.jpg",
    ):
        write_photo(root / "a" / name, seed=len(name))
    (root / "a" / "notes.txt").write_text("no image")
    (root / "stray.jpg").write_bytes(b"not in a class")
    (root / "b" / "linked.jpg").symlink_to(root / "a" / "z.Png")
    (root / "b" / "linked folder").symlink_to(root / "a")
    (root / "linked class").symlink_to(root / "C")
    expected = keras.utils.image_dataset_from_directory(root, shuffle=False, batch_size=None, verbose=False)
    classes, files = find_images(root)
    assert classes == expected.class_names
    assert [str(root / file.path) for file in files] == expected.file_paths
    labels = [int(label) for _, label in expected.as_numpy_iterator()]
    assert [classes.index(file.label) for file in files] == labels


def test_webp_is_found_besides_the_formats_of_keras(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root", {"a": 1, "b": 1})
    (root / "a" / "x.WebP").write_bytes(b"RIFF")
    assert "a/x.WebP" in [file.path for file in find_images(root)[1]]


def test_a_link_loop_does_not_hang(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root", {"a": 2, "b": 2})
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "endless").symlink_to(root / "endless")
    assert len(find_images(root)[1]) == 4


def test_paths_are_relative_to_the_source_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "root", {"a": 1, "b": 1})
    (root / "a" / "deep").mkdir()
    write_photo(root / "a" / "deep" / "x.jpg", seed=1)
    expected = ["a/000.jpg", "a/deep/x.jpg", "b/000.jpg"]
    monkeypatch.chdir(root)
    for name in (Path(), Path("../root"), Path("a/.."), root):
        found = find_images(name)[1]
        assert [file.path for file in found] == expected
        assert [file.problem for file in digest_files(name, found)] == [None] * 3
    assert image_paths(Path()) == [Path(path) for path in expected]
    assert image_paths(root / "a") == [root / "a" / "000.jpg", root / "a" / "deep" / "x.jpg"]


def test_split_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        write_classes(tmp_path / split, {"a": count, "b": count})
    classes, files = find_images(tmp_path)
    assert classes == ["a", "b"]
    assert [file.split for file in files] == ["train"] * 6 + ["validation"] * 4 + ["test"] * 2
    assert files[0].path == "train/a/000.jpg"


def test_a_test_folder_alone_is_a_split_folder(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", {"a": 2, "b": 2})
    classes, files = find_images(tmp_path)
    assert classes == ["a", "b"]
    assert {file.split for file in files} == {"test"}
    with pytest.raises(InputError, match="class 'a' has 0 in `train`"):
        check_class_counts(classes, files, fractions=FRACTIONS)


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, {"train": 2, "plane": 2})
    classes, files = find_images(tmp_path)
    assert classes == ["plane", "train"]
    assert {file.split for file in files} == {None}


def refused(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    write_photo(tmp_path / "flat" / "a.jpg", seed=1)
    write_classes(tmp_path / "one", {"a": 3})
    write_classes(tmp_path / "none", {"a": 0, "b": 0})
    write_classes(tmp_path / "mixed" / "train", {"a": 1, "b": 1})
    write_classes(tmp_path / "mixed" / "test", {"a": 1, "b": 1})
    write_classes(tmp_path / "mixed", {"extra": 1})
    for split in ("train", "val", "validation"):
        write_classes(tmp_path / "both" / split, {"a": 1, "b": 1})
    write_classes(tmp_path / "kaggle" / "train", {"a": 3, "b": 3})
    (tmp_path / "kaggle" / "test").mkdir()
    write_photo(tmp_path / "kaggle" / "test" / "1.jpg", seed=1)
    return {
        "kaggle": (tmp_path / "kaggle", "each must hold class folders; test has none"),
        "missing": (tmp_path / "missing", "does not exist"),
        "file": (tmp_path / "file", "is a file"),
        "empty": (tmp_path / "empty", "has no sub-folders"),
        "flat": (tmp_path / "flat", "has no sub-folders"),
        "one": (tmp_path / "one", "at least two classes; .* has only 'a'"),
        "none": (tmp_path / "none", "must hold images"),
        "mixed": (tmp_path / "mixed", "mixes split folders .*test, train.* with others .'extra'"),
        "both": (tmp_path / "both", "both `val` and `validation`"),
    }


@pytest.mark.parametrize("case", ["missing", "file", "empty", "flat", "one", "none", "mixed", "both", "kaggle"])
def test_a_folder_that_can_not_be_used_is_refused(tmp_path: Path, case: str) -> None:
    path, message = refused(tmp_path)[case]
    with pytest.raises(InputError, match=message) as caught:
        find_images(path)
    assert "\n" not in str(caught.value)


def test_a_class_with_fewer_images_than_splits_is_refused(tmp_path: Path) -> None:
    classes, files = find_images(write_classes(tmp_path, {"a": 5, "b": 2, "c": 0}))
    with pytest.raises(InputError, match=r"class 'b' has 2 and needs 3 \(train, validation, test\); class 'c' has 0"):
        check_class_counts(classes, files, fractions=FRACTIONS)
    check_class_counts(["a", "b"], files, fractions=SplitConfig(train=0.8, validation=0.2, test=0))


def test_a_class_that_a_split_folder_lacks_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "test", {"a": 3})
    classes, files = find_images(tmp_path)
    with pytest.raises(InputError, match="class 'b' has none in `test`"):
        check_class_counts(classes, files, fractions=FRACTIONS)


def test_what_can_not_be_read_has_a_problem_and_no_digest(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 1, "b": 1})
    (root / "a" / "broken.jpg").symlink_to(root / "nowhere")
    os.mkfifo(root / "a" / "pipe.jpg")  # opening it would wait forever
    Path(os.fsdecode(os.fsencode(root / "a") + b"/bad\xff.jpg")).write_bytes(b"x")
    problems = {file.path: file.problem for file in digest_files(root, find_images(root)[1])}
    assert problems["a/000.jpg"] is None
    assert "No such file" in str(problems["a/broken.jpg"])
    assert "not a regular file" in str(problems["a/pipe.jpg"])
    assert "not UTF-8" in str(problems["a/bad\\xff.jpg"])


def test_a_file_that_changed_after_the_scan_is_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 1, "b": 1})
    scanned = digest_files(root, find_images(root)[1])[0]
    assert read_unchanged(root, scanned.path, scanned.sha256) == (root / scanned.path).read_bytes()
    (root / scanned.path).write_bytes(b"other")
    with pytest.raises(SourceChangedError, match=r"'a/000\.jpg' changed"):
        read_unchanged(root, scanned.path, scanned.sha256)
    (root / scanned.path).unlink()
    with pytest.raises(SourceChangedError, match=r"'a/000\.jpg' can no longer be read"):
        read_unchanged(root, scanned.path, scanned.sha256)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("Train", "valid"), ("dev", "test", "train2")])
def test_folders_that_are_splits_under_other_names_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_classes(tmp_path / name, {"glioma": 2, "none": 2})
    if "train2" in names:
        assert find_images(tmp_path / "train2")[0] == ["glioma", "none"]
        return
    with pytest.raises(InputError, match=r"look like splits, not classes .*; name them train, validation and test"):
        find_images(tmp_path)


def test_classes_that_are_called_like_splits_hold_images(tmp_path: Path) -> None:
    assert find_images(write_classes(tmp_path, {"Dev": 1, "Eval": 1}))[0] == ["Dev", "Eval"]


def test_a_folder_that_can_not_be_listed_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "root", {"a": 2, "b": 2})
    write_classes(root / "a", {"locked": 2})
    scandir = os.scandir

    def refuse(path: str | Path) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for look in (lambda: find_images(root), lambda: image_paths(root)):
        with pytest.raises(InputError, match=r"a folder can't be listed: '.*locked' \(Permission denied\)"):
            look()


def test_other_files_are_counted_by_extension(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root", {"a": 2, "b": 2})
    for name in ("a/x.HEIC", "b/y.heic", "notes", ".hidden.txt"):
        (root / name).write_bytes(b"x")
    assert count_ignored(root) == {".heic": 2, "": 1}
