"""Scans that follow one another: what is read again, what is not, and that no cache ever lies for long."""

from __future__ import annotations

import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.progress import Progress
from pipelines.sources.folder import FoundFile, find_images
from pipelines.sources.scan import read_listing, scan_source
from pipelines.sources.states import RACY_NS, FileStates, states_path
from tests.opened import opened_below
from tests.sources.folders import age, alter_in_secret, write_photo


def scanned(home: Path, root: Path, *, verify: bool = False) -> tuple[dict[str, FoundFile], list[str]]:
    """The files that a scan lists, by path, and the paths of those that it read."""
    with opened_below(root) as read:
        listing = scan_source(home, root, verify=verify)
    return {file.path: file for file in read_listing(home, listing)}, sorted(read)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_unchanged_files_are_read_once_and_give_the_same_listing(photos: Path, home: Path) -> None:
    age(photos)
    first, read = scanned(home, photos)
    assert read == sorted(first)
    assert len(read) == 24
    assert scanned(home, photos) == (first, [])
    assert scan_source(home, photos) == scan_source(home / "new", photos)
    assert scanned(home, photos, verify=True) == (first, sorted(first))


def test_a_touched_file_is_read_again_and_nothing_else(photos: Path, home: Path) -> None:
    first, _ = scanned(home, age(photos))
    path = photos / "cat" / "003.jpg"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    assert scanned(home, photos) == (first, ["cat/003.jpg"])
    assert scanned(home, photos) == (first, [])


def test_changed_bytes_are_noticed_by_size_or_time(photos: Path, home: Path) -> None:
    first, _ = scanned(home, age(photos))
    write_photo(photos / "cat" / "001.jpg", seed=99)
    longer = photos / "dog" / "002.jpg"
    status = longer.stat()
    longer.write_bytes(longer.read_bytes() + b"x")
    os.utime(longer, ns=(0, status.st_mtime_ns))
    second, read = scanned(home, photos)
    assert read == ["cat/001.jpg", "dog/002.jpg"]
    assert {path for path in first if second[path].sha256 != first[path].sha256} == set(read)
    assert second["dog/002.jpg"].size_bytes == status.st_size + 1


def test_bytes_changed_with_size_and_time_kept_are_noticed_only_with_verify(photos: Path, home: Path) -> None:
    first, _ = scanned(home, age(photos))
    path = photos / "cat" / "003.jpg"
    alter_in_secret(path, path.read_bytes()[::-1])
    assert scanned(home, photos) == (first, [])
    verified, _ = scanned(home, photos, verify=True)
    assert {name for name in first if verified[name] != first[name]} == {"cat/003.jpg"}
    assert scanned(home, photos) == (verified, [])  # what verify found is remembered


def test_deleted_renamed_and_moved_files(photos: Path, home: Path) -> None:
    first, _ = scanned(home, age(photos))
    (photos / "cat" / "000.jpg").unlink()
    (photos / "cat" / "001.jpg").rename(photos / "cat" / "renamed.jpg")
    (photos / "cat" / "002.jpg").rename(photos / "dog" / "moved.jpg")
    second, read = scanned(home, photos)
    assert read == ["cat/renamed.jpg", "dog/moved.jpg"]
    assert first.keys() - second.keys() == {"cat/000.jpg", "cat/001.jpg", "cat/002.jpg"}
    assert second["cat/renamed.jpg"].sha256 == first["cat/001.jpg"].sha256
    assert (second["dog/moved.jpg"].sha256, second["dog/moved.jpg"].label) == (first["cat/002.jpg"].sha256, "dog")
    assert set(pq.read_table(states_path(home, photos))["path"].to_pylist()) == set(second)


def test_a_file_that_takes_the_name_of_another_is_read(photos: Path, home: Path) -> None:
    first, _ = scanned(home, age(photos))
    one, other = photos / "cat" / "004.jpg", photos / "cat" / "005.jpg"
    os.utime(other, ns=(0, other.stat().st_mtime_ns + 1_000_000_000))
    other.replace(one)
    second, read = scanned(home, photos)
    assert read == ["cat/004.jpg"]
    assert second["cat/004.jpg"].sha256 == first["cat/005.jpg"].sha256


def test_a_file_modified_just_before_the_scan_is_read_again(photos: Path, home: Path) -> None:
    age(photos)
    racy, safe, future = (photos / "cat" / f"00{number}.jpg" for number in range(3))
    now = time.time_ns()
    os.utime(racy, ns=(now, now - RACY_NS // 2))
    os.utime(safe, ns=(now, now - 2 * RACY_NS))
    os.utime(future, ns=(now, now + 3_600_000_000_000))
    first, _ = scanned(home, photos)
    alter_in_secret(racy, racy.read_bytes()[::-1])
    second, read = scanned(home, photos)
    assert read == ["cat/000.jpg", "cat/002.jpg"]
    assert {path for path in first if second[path] != first[path]} == {"cat/000.jpg"}


def test_a_file_that_changes_while_it_is_read_is_not_remembered(photos: Path, home: Path) -> None:
    age(photos)
    states = FileStates(states_path(home, photos))
    path = photos / "cat" / "000.jpg"
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    states.note("cat/000.jpg", before, "the digest of either")
    states.save()
    assert FileStates(states_path(home, photos)).recall("cat/000.jpg", path.stat()) is None


def test_what_can_not_be_read_is_tried_again(photos: Path, home: Path) -> None:
    age(photos)
    target, link = photos.parent / "elsewhere.jpg", photos / "cat" / "link.jpg"
    link.symlink_to(target)
    first, _ = scanned(home, photos)
    assert "No such file" in str(first["cat/link.jpg"].problem)
    write_photo(target, seed=5)
    second, read = scanned(home, photos)
    assert second["cat/link.jpg"].problem is None
    assert read == ["cat/link.jpg"]
    target.unlink()
    assert scanned(home, photos)[0] == first


@pytest.mark.parametrize("damage", ["text", "empty", "half", "bit", "columns"])
def test_a_damaged_table_is_left_aside_with_a_word_and_made_anew(
    photos: Path, home: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = scanned(home, age(photos))
    path = states_path(home, photos)
    content = bytearray(path.read_bytes())
    if damage == "bit":
        digests = pq.ParquetFile(path).metadata.row_group(0).column(3)
        content[digests.dictionary_page_offset + digests.total_compressed_size // 2] ^= 1
    if damage == "columns":
        pq.write_table(pa.table({"path": ["cat/000.jpg"]}), path)
    else:
        path.write_bytes({"text": b"no table", "empty": b"", "half": content[: len(content) // 2], "bit": content}[damage])
    with caplog.at_level(logging.WARNING):
        assert scanned(home, photos) == (first, sorted(first))
    assert [record.message for record in caplog.records if "is damaged and is made anew" in record.message]
    assert scanned(home, photos) == (first, [])


def test_scans_at_the_same_time_leave_a_whole_table(photos: Path, home: Path) -> None:
    age(photos)
    with ThreadPoolExecutor(4) as pool:
        listings = list(pool.map(lambda _: scan_source(home, photos), range(8)))
    assert len(set(listings)) == 1
    assert scanned(home, photos)[1] == []
    # The slower one may write last, and knows less.
    slow = FileStates(states_path(home, photos))
    write_photo(photos / "cat" / "new.jpg", seed=5)
    age(photos / "cat")
    scanned(home, photos)
    status = (photos / "dog" / "000.jpg").stat()
    assert slow.recall("dog/000.jpg", status)
    slow.save()
    _, read = scanned(home, photos)
    assert len(read) == 24
    assert "dog/000.jpg" not in read


def test_sources_do_not_share_states(photos: Path, home: Path, tmp_path: Path) -> None:
    first, _ = scanned(home, age(photos))
    shutil.copytree(photos, tmp_path / "copy")
    path = tmp_path / "copy" / "cat" / "000.jpg"
    alter_in_secret(path, path.read_bytes()[::-1])
    copied, read = scanned(home, tmp_path / "copy")
    assert len(read) == 24
    assert copied["cat/000.jpg"] != first["cat/000.jpg"]
    assert scanned(home, photos) == (first, [])


def test_two_sources_of_one_folder_do_not_forget_each_other_s_files(photos: Path, home: Path) -> None:
    age(photos)
    classes, files = find_images(photos)
    halves = {"first": files[::2], "second": files[1::2]}
    for opened in (12, 0):
        for name, listed in halves.items():
            with opened_below(photos) as read:
                scan_source(home, photos, listed=(classes, listed), name=name)
            assert len(read) == opened


def test_progress_reaches_the_last_file(photos: Path, home: Path) -> None:
    seen: list[Progress] = []
    scan_source(home, photos, report=seen.append)
    assert [progress.done for progress in seen] == [0, 16, 24]
    assert {progress.total for progress in seen} == {24}
    age(photos)
    scan_source(home, photos)
    seen.clear()
    scan_source(home, photos, report=seen.append)
    assert [progress.done for progress in seen] == [24]
