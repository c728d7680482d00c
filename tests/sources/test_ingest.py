"""The index: every bad file named with its reason, the run going on, and no class lost on the way."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock, Timeout
from PIL import Image

from pipelines.config import Recipe
from pipelines.contracts import ImageIndex
from pipelines.errors import InputError, SourceChangedError
from pipelines.progress import Progress
from pipelines.slices import ingest_slice
from pipelines.sources import examine, facts
from pipelines.sources.facts import extend_facts, facts_path, read_facts
from pipelines.sources.folder import digest_files, find_images
from pipelines.sources.ingest import draw_splits, examine_files, group_near_equal, ingest, ledger_path
from pipelines.sources.scan import read_listing, scan_source
from pipelines.store.artifacts import artifact_path
from pipelines.store.index import read_index, usable
from tests.images import draw_photo, encode
from tests.opened import opened_below
from tests.sources.folders import age, alter_in_secret, write_classes, write_photo


def index(root: Path, **changes: Any) -> list[dict[str, Any]]:
    """The index that a new home has of a source."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        return read_index(artifact_path(home, ingested(home, root, **changes)[0].artifact) / "index.parquet")


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


def ingested(home: Path, root: Path, **changes: Any) -> tuple[ImageIndex, list[str]]:
    """The index of a source, and the paths of the files that ingest read for it, after the scan."""
    listing = scan_source(home, root)
    with opened_below(root) as read:
        result = ingest(home, root, listing, config=ingest_slice(Recipe.model_validate(changes), dataset="d"))
    return result, sorted(read)


def table(home: Path) -> Path:
    return facts_path(home, max_pixels=Recipe().max_pixels)


def test_no_content_is_examined_twice(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "zero.jpg").write_bytes(b"")
    (photos / "cat" / "copy.jpg").write_bytes((photos / "cat" / "000.jpg").read_bytes())
    home = tmp_path / "home"
    first, read = ingested(home, photos)
    assert len(read) == 25  # 26 files, two of them equal
    assert ingested(home, photos) == (first, [])
    assert ingested(home, photos, max_bad_fraction=0.5) == (first, [])
    assert ingested(tmp_path / "new", photos)[0].artifact == first.artifact
    (photos / "cat" / "001.jpg").rename(photos / "dog" / "moved.jpg")
    write_photo(photos / "dog" / "new.jpg", seed=5)
    second, read = ingested(home, photos)
    assert read == ["dog/new.jpg"]
    assert second.bad_files == 1
    rows = {row["path"]: row for row in read_index(artifact_path(home, second.artifact) / "index.parquet")}
    assert rows["cat/zero.jpg"]["reason"] == "empty file (0 bytes)"
    assert {**rows["cat/copy.jpg"], "path": ""} == {**rows["cat/000.jpg"], "path": ""}


def test_another_limit_or_version_examines_anew(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ingested(tmp_path / "home", photos)[1]) == 24
    with pytest.raises(InputError, match="over the pixel limit"):
        ingested(tmp_path / "home", photos, max_pixels=9)
    monkeypatch.setattr(facts, "EXAMINE_VERSION", examine.EXAMINE_VERSION + 1)
    before = sorted(path.name for path in table(tmp_path / "home").parent.glob("*.parquet"))
    assert len(before) == 2
    assert len(ingested(tmp_path / "home", photos)[1]) == 24
    # Nobody reads what the version before had found.
    assert list((tmp_path / "home" / "facts").glob("*.parquet")) == [table(tmp_path / "home")]


def test_facts_and_reasons_come_back_as_they_were(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "text.png").write_text("hello, I am text")
    (photos / "cat" / "palette.gif").write_bytes(encode(draw_photo(50, 40, 8), "GIF"))
    files = digest_files(photos, find_images(photos)[1])
    path = tmp_path / "facts.parquet"
    without = examine_files(photos, files, max_pixels=10_000)
    assert examine_files(photos, files, max_pixels=10_000, facts=path) == without
    assert examine_files(tmp_path / "nowhere", files, max_pixels=10_000, facts=path) == without


def test_what_was_found_out_before_a_failure_is_kept(photos: Path, tmp_path: Path) -> None:
    listing = scan_source(tmp_path / "home", photos)
    path = photos / "dog" / "011.jpg"
    contents = path.read_bytes()
    path.write_bytes(b"other")
    config = ingest_slice(Recipe(), dataset="d")
    with pytest.raises(SourceChangedError, match=r"'dog/011\.jpg' changed"):
        ingest(tmp_path / "home", photos, listing, config=config)
    path.write_bytes(contents)
    with opened_below(photos) as read:
        ingest(tmp_path / "home", photos, listing, config=config)
    assert 1 <= len(read) <= 16  # the chunk that failed


def test_a_file_altered_in_secret_is_said_with_the_way_out(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    scan_source(home, age(photos))
    path = photos / "dog" / "003.jpg"
    alter_in_secret(path, path.read_bytes()[::-1])
    with pytest.raises(SourceChangedError, match=r"^'dog/003\.jpg' changed .* with --verify") as caught:
        ingested(home, photos)
    assert "\n" not in str(caught.value)
    config = ingest_slice(Recipe(), dataset="d")
    verified = ingest(home, photos, scan_source(home, photos, verify=True), config=config)
    assert verified.bad_files == 1  # a JPEG from back to front


def test_a_file_that_vanished_after_the_scan_is_said_when_it_has_to_be_read(photos: Path, tmp_path: Path) -> None:
    listing = scan_source(tmp_path / "home", photos)
    (photos / "dog" / "003.jpg").unlink()
    with pytest.raises(SourceChangedError, match=r"'dog/003\.jpg' can no longer be read"):
        ingest(tmp_path / "home", photos, listing, config=ingest_slice(Recipe(), dataset="d"))


@pytest.mark.parametrize("damage", ["text", "half", "bit"])
def test_damaged_facts_are_found_out_anew(photos: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "home"
    first, _ = ingested(home, photos)
    content = bytearray(table(home).read_bytes())
    hashes = pq.ParquetFile(table(home)).metadata.row_group(0).column(8)
    content[hashes.dictionary_page_offset + hashes.total_compressed_size // 2] ^= 1
    table(home).write_bytes({"text": b"no table", "half": content[: len(content) // 2], "bit": content}[damage])
    with caplog.at_level(logging.WARNING):
        second, read = ingested(home, photos)
    assert (second, len(read)) == (first, 24)
    assert "is damaged and is made anew" in caplog.text
    assert ingested(home, photos) == (first, [])


def test_ingests_at_the_same_time_lose_nothing_of_each_other_s_facts(photos: Path, tmp_path: Path) -> None:
    others = write_classes(tmp_path / "others", {"emu": 9, "fox": 9})
    shutil.copytree(photos, others, dirs_exist_ok=True)
    home, config = tmp_path / "home", ingest_slice(Recipe(), dataset="d")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda root: ingest(home, root, scan_source(home, root), config=config), [photos, others] * 3))
    kept = pq.read_table(table(home))["sha256"].to_pylist()
    assert len(kept) == len(set(kept)) == 24 + 18
    assert ingested(home, others)[1] == []


def test_extending_facts_keeps_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    extend_facts(path, {})
    assert not path.exists()
    extend_facts(path, {"1": "bad", "2": "worse"})
    extend_facts(path, {"2": "worst", "3": "new"})
    assert read_facts(path, ["1", "2", "3", "4"]) == {"1": "bad", "2": "worst", "3": "new"}
    assert read_facts(path, []) == {}


def test_progress_counts_known_files_at_once(photos: Path, tmp_path: Path) -> None:
    ingested(tmp_path / "home", photos)
    write_photo(photos / "dog" / "new.jpg", seed=5)
    listing, seen = scan_source(tmp_path / "home", photos), list[Progress]()
    ingest(tmp_path / "home", photos, listing, config=ingest_slice(Recipe(), dataset="d"), report=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(24, 25), (25, 25)]


def test_a_recipe_says_how_equal_near_equal_is() -> None:
    rows: list[dict[str, Any]] = [{"status": "ok", "perceptual_hash": f"{code:064x}"} for code in (0, 0, 1, 2**255 - 1)]
    for bits, groups in ((0, [0, 0, 2, 3]), (16, [0, 0, 0, 3])):
        group_near_equal(rows, max_bits=bits)
        assert [row["group"] for row in rows] == groups


def test_how_equal_near_equal_is_does_not_change_the_ledger(tmp_path: Path) -> None:
    recipes = [Recipe.model_validate({"split": split}) for split in ({}, {"near_equal_bits": 0}, {"seed": 2})]
    paths = [ledger_path(tmp_path, ingest_slice(recipe, dataset="d")) for recipe in recipes]
    assert paths[0] == paths[1] != paths[2]


def test_the_ledger_is_locked_from_reading_to_writing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ingest_slice(Recipe(), dataset="d")
    lock = ledger_path(tmp_path, config).with_suffix(".lock")
    tried = []

    def draw(*arguments: Any, **options: Any) -> None:
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0)
        tried.append(lock)
        draw_splits(*arguments, **options)

    monkeypatch.setattr("pipelines.sources.ingest.draw_splits", draw)
    ingest(tmp_path, photos, scan_source(tmp_path, photos), config=config)
    assert tried
