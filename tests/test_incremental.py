"""From the scan to the image store: after a change just the images that are new are read, examined and decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import PreparedImages
from pipelines.data.prepare import prepare
from pipelines.errors import SourceChangedError
from pipelines.slices import ingest_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from tests.opened import opened_below
from tests.sources.folders import age, alter_in_secret, write_classes, write_photo


def run(home: Path, source: Path, *, verify: bool = False, image_size: int = 32) -> tuple[PreparedImages, list[list[str]]]:
    """The prepared images, and the paths of the files that were opened by the scan, by ingest and by prepare."""
    with opened_below(source) as scanned:
        listing = scan_source(home, source, verify=verify)
    with opened_below(source) as examined:
        index = ingest(home, source, listing, config=ingest_slice(Recipe(), dataset="d"))
    with opened_below(source) as decoded:
        prepared = prepare(home, source, index, image_size=image_size, resize="stretch", store=StoreConfig())
    return prepared, [sorted(scanned), sorted(examined), sorted(decoded)]


@pytest.fixture
def thirty(tmp_path: Path) -> Path:
    return age(write_classes(tmp_path / "photos", {"cat": 15, "dog": 15}))


def test_one_image_more_is_one_image_read_examined_and_decoded(thirty: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, opened = run(home, thirty)
    assert [len(paths) for paths in opened] == [30, 30, 30]
    assert run(home, thirty) == (first, [[], [], []])
    write_photo(thirty / "dog" / "new.jpg", seed=5)
    second, opened = run(home, thirty)
    assert opened == [["dog/new.jpg"]] * 3
    assert set(first.shards) < set(second.shards)


def test_verify_reads_all_and_examines_and_decodes_what_changed(thirty: Path, tmp_path: Path) -> None:
    home, path = tmp_path / "home", thirty / "cat" / "003.jpg"
    run(home, thirty)
    # Bytes after a JPEG's end are no damage, but another content.
    path.write_bytes(path.read_bytes() + b"1")
    age(thirty / "cat")
    first, _ = run(home, thirty)
    alter_in_secret(path, path.read_bytes()[:-1] + b"2")
    assert run(home, thirty) == (first, [[], [], []])
    verified, (scanned, *others) = run(home, thirty, verify=True)
    assert len(scanned) == 30
    assert others == [["cat/003.jpg"]] * 2
    assert verified.artifact != first.artifact


def test_a_file_altered_in_secret_is_noticed_at_the_latest_when_it_is_decoded(thirty: Path, tmp_path: Path) -> None:
    home, path = tmp_path / "home", thirty / "cat" / "003.jpg"
    run(home, thirty)
    alter_in_secret(path, path.read_bytes()[::-1])
    with pytest.raises(SourceChangedError, match=r"^'cat/003\.jpg' changed .* with --verify"):
        run(home, thirty, image_size=40)
