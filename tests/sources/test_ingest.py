"""The index: every bad file named with its reason, the run going on, and no class lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config import Recipe
from pipelines.errors import InputError, SourceChangedError
from pipelines.slices import ingest_slice
from pipelines.sources.folder import digest_files, find_images
from pipelines.sources.ingest import build_index, ingest
from pipelines.sources.scan import read_listing, scan_source
from pipelines.store.artifacts import artifact_path
from pipelines.store.index import read_index, usable
from tests.images import draw_photo, encode
from tests.sources.folders import write_classes


def index(root: Path, assigned: dict[str, str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    config = ingest_slice(Recipe.model_validate(changes), dataset="d")
    classes, found = find_images(root)
    return build_index(root, classes, digest_files(root, found), config=config, assigned=assigned or {})


def test_each_kind_of_bad_file_is_named_with_its_reason(photos: Path) -> None:
    photo = encode(draw_photo(200, 100), "JPEG")
    bad = {
        "zero.jpg": b"",
        "text.png": b"hello, I am text",
        "truncated.jpg": photo[: len(photo) // 2],
        "huge.png": encode(Image.new("L", (3000, 2000)), "PNG"),
        "tiff.jpg": encode(draw_photo(20, 20), "TIFF"),
    }
    for name, contents in bad.items():
        (photos / "cat" / name).write_bytes(contents)
    (photos / "dog" / "gone.jpg").symlink_to(photos / "nowhere")
    rows = {row["path"]: row for row in index(photos, max_bad_fraction=0.5, max_pixels=1_000_000)}
    assert len(rows) == 30
    reasons = {path: row["reason"] for path, row in rows.items() if row["status"] == "bad"}
    expected = {
        "cat/zero.jpg": "0 bytes",
        "cat/text.png": "not an image",
        "cat/truncated.jpg": "truncated",
        "cat/huge.png": "over the pixel limit: 3000x2000 = 6000000 > 1000000",
        "cat/tiff.jpg": "TIFF is not a supported format",
        "dog/gone.jpg": "unreadable: No such file",
    }
    assert reasons.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in reasons[path]
        assert rows[path]["split"] is None
    assert all(row["split"] and row["width"] == 48 for row in usable(list(rows.values())))


def test_too_many_bad_files_stop_the_run_with_the_list(photos: Path) -> None:
    (photos / "cat" / "zero 1.jpg").write_bytes(b"")
    assert len(index(photos)) == 25  # one of 25 is within .05
    (photos / "dog" / "zero 2.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 26 files are bad, more than `max_bad_fraction` \(0.05\) allows") as caught:
        index(photos)
    assert "  'cat/zero 1.jpg': empty file (0 bytes)" in str(caught.value)
    assert "  'dog/zero 2.jpg': empty file (0 bytes)" in str(caught.value)


def test_no_readable_image_is_said_as_such(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.jpg").write_text("x")
    with pytest.raises(InputError, match="has no readable image; all 6 files are bad"):
        index(tmp_path, max_bad_fraction=1)


def test_a_class_that_its_bad_files_leave_too_small_is_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 30, "b": 3})
    (root / "b" / "000.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="class 'b' has 2 and needs 3"):
        index(root)


def test_copies_share_a_split_and_a_group(photos: Path) -> None:
    original = photos / "cat" / "000.jpg"
    for number in range(5):
        (photos / "cat" / f"copy{number}.jpg").write_bytes(original.read_bytes())
    image = Image.open(original)
    (photos / "cat" / "as.png").write_bytes(encode(image, "PNG"))
    rows = {row["path"]: row for row in index(photos)}
    family = [rows["cat/000.jpg"], rows["cat/as.png"], *(rows[f"cat/copy{number}.jpg"] for number in range(5))]
    assert len({row["split"] for row in family}) == 1
    assert len({row["group"] for row in family}) == 1
    assert len({row["group"] for row in rows.values()}) == 24


def test_split_folders_stay_and_train_gives_up_a_validation_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 40, "b": 40})
    write_classes(tmp_path / "test", {"a": 3, "b": 3})
    rows = index(tmp_path)
    assert {row["split"] for row in rows if row["path"].startswith("test/")} == {"test"}
    assert {row["split"] for row in rows if row["path"].startswith("train/")} == {"train", "validation"}


def test_the_home_remembers_splits_and_equal_sources_give_equal_artifacts(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    config = ingest_slice(Recipe(), dataset="d")
    listing = scan_source(home, photos)
    assert [file.path for file in read_listing(home, listing)] == [file.path for file in find_images(photos)[1]]
    first = ingest(home, photos, listing, config=config)
    assert ingest(home, photos, scan_source(home, photos), config=config) == first
    assert sum(first.examples.values()) == 24
    before = {row["sha256"]: row["split"] for row in read_index(artifact_path(home, first.artifact) / "index.parquet")}
    write_classes(photos, {"cat": 40, "dog": 40})
    grown = ingest(home, photos, scan_source(home, photos), config=config)
    after = {row["sha256"]: row["split"] for row in read_index(artifact_path(home, grown.artifact) / "index.parquet")}
    assert {digest: after[digest] for digest in before} == before


def test_a_file_that_changes_under_the_run_is_said(photos: Path, tmp_path: Path) -> None:
    listing = scan_source(tmp_path, photos)
    (photos / "dog" / "003.jpg").write_bytes(encode(draw_photo(30, 30, 99), "JPEG"))
    with pytest.raises(SourceChangedError, match=r"'dog/003\.jpg' changed"):
        ingest(tmp_path, photos, listing, config=ingest_slice(Recipe(), dataset="d"))
