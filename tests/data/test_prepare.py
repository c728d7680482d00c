"""Prepare: every usable image in the store once, decoded as the served graph would, by Pillow only where it must be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages, StoreLayout
from pipelines.data import decoder
from pipelines.data.decode import decode_and_resize
from pipelines.data.prepare import prepare, read_examples
from pipelines.errors import SourceChangedError
from pipelines.progress import Report
from pipelines.slices import ingest_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store import rows
from tests.images import draw_photo, encode
from tests.opened import opened_below
from tests.sources.folders import write_photo

SIZE = 32


def index_of(home: Path, source: Path) -> ImageIndex:
    return ingest(home, source, scan_source(home, source), config=ingest_slice(Recipe(), dataset="d"))


def prepared(
    home: Path, source: Path, store: StoreConfig | None = None, *, image_size: int = SIZE, said: list[str] | None = None
) -> PreparedImages:
    store, index, report = store or StoreConfig(), index_of(home, source), noting([] if said is None else said)
    return prepare(home, source, index, image_size=image_size, resize="stretch", store=store, report=report)


def noting(said: list[str]) -> Report:
    """Takes down the lines that are said."""
    return lambda progress: said.append(progress.detail) if progress.milestone else None


@pytest.mark.parametrize("layout", ["decoded", "encoded"])
def test_the_store_holds_the_pixels_of_the_served_graph_with_their_labels(
    photos: Path, tmp_path: Path, layout: StoreLayout
) -> None:
    home = tmp_path / "home"
    result = prepared(home, photos, StoreConfig(layout=layout))
    assert (result.layout, result.prepare_only_formats) == (layout, ())
    seen = 0
    for split in ("train", "validation", "test"):
        examples, reader = read_examples(home, result, split)
        images = reader.gather(np.arange(len(examples)))
        for path, label, image in zip(examples.paths, examples.labels, images, strict=True):
            assert path.startswith(result.classes[label])
            expected = decode_and_resize((photos / path).read_bytes(), image_size=SIZE, resize="stretch").numpy()
            error = np.abs(image.astype(int) - expected)
            assert error.max() == 0 if layout == "decoded" else 0 < error.mean() < 3
            seen += 1
    assert seen == 24


def test_the_layouts_are_apart_and_auto_says_which_it_took(photos: Path, tmp_path: Path) -> None:
    home, said = tmp_path / "home", list[str]()
    small = StoreConfig(budget_gib=1e-5)
    encoded, decoded = prepared(home, photos, small, said=said), prepared(home, photos, said=said)
    assert (encoded.layout, decoded.layout) == ("encoded", "decoded")
    assert encoded.artifact.digest != decoded.artifact.digest
    assert encoded.store != decoded.store
    assert said == [
        "layout encoded: 24 images of 32 px are 0.1 MiB of pixels, more than `store.budget_gib` (1e-05)",
        "layout decoded: 24 images of 32 px are 0.1 MiB of pixels, within `store.budget_gib` (20)",
    ]
    assert prepared(home, photos, StoreConfig(layout="encoded")) == encoded
    assert prepared(home, photos, StoreConfig(budget_gib=30)) == decoded


def test_a_set_that_outgrows_the_budget_is_encoded_from_its_pixels(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "new.webp").write_bytes(encode(draw_photo(50, 40, 7), "WEBP"))
    home, said = tmp_path / "home", list[str]()
    fits = StoreConfig(budget_gib=25 * SIZE * SIZE * 3 / 2**30)
    assert prepared(home, photos, fits).layout == "decoded"
    write_photo(photos / "dog" / "new.jpg", seed=5)
    index = index_of(home, photos)
    with opened_below(photos) as opened:
        outgrown = prepare(home, photos, index, image_size=SIZE, resize="stretch", store=fits, report=noting(said))
    assert opened == ["dog/new.jpg"]
    assert said[1:] == ["25 images are encoded from the pixels that the store holds of them"]
    assert (outgrown.layout, outgrown.prepare_only_formats) == ("encoded", ("WEBP",))
    afresh = prepared(tmp_path / "new home", photos, StoreConfig(layout="encoded"))
    assert afresh.artifact == outgrown.artifact
    for split in ("train", "validation", "test"):
        (examples, mine), (_, theirs) = (
            read_examples(home, outgrown, split),
            read_examples(tmp_path / "new home", afresh, split),
        )
        numbers = np.arange(len(examples))
        np.testing.assert_array_equal(mine.gather(numbers), theirs.gather(numbers))


def test_a_damaged_shard_is_no_source_of_pixels(photos: Path, tmp_path: Path) -> None:
    home, said = tmp_path / "home", list[str]()
    (shard,) = (home / prepared(home, photos).store).glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-1])
    prepared(home, photos, StoreConfig(layout="encoded"), said=said)
    assert len(said) == 1


def test_a_store_of_another_version_is_left_alone_and_said_once(photos: Path, tmp_path: Path) -> None:
    home, said = tmp_path / "home", list[str]()
    mine = prepared(home, photos)
    other = (home / mine.store).with_name("32px-stretch-v0")
    (home / mine.store).rename(other)
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    assert prepared(home, photos, said=said) == mine
    assert said[1:] == [
        "image store 32px-stretch-v0 was made by another version and is left alone; its images are decoded again"
    ]
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    said.clear()
    prepared(home, photos, said=said)
    prepared(home, photos, image_size=40, said=said)  # another kind of row has no other version
    assert [line for line in said if "version" in line] == []


def test_a_damaged_shard_is_said_and_made_again(photos: Path, tmp_path: Path) -> None:
    home, said = tmp_path / "home", list[str]()
    result = prepared(home, photos)
    (shard,) = (home / result.store).glob("*.arrow")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    assert prepared(home, photos, said=said) == result
    assert said[1:] == [f"shard {shard.name} of the image store is damaged; its images are decoded again"]
    assert shard.read_bytes() == content


def test_formats_that_only_prepare_can_read_are_named(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "new.webp").write_bytes(encode(draw_photo(50, 40, 7), "WEBP"))
    (photos / "cat" / "palette.bmp").write_bytes(encode(draw_photo(50, 40, 8).convert("P"), "BMP"))
    result = prepared(tmp_path / "home", photos)
    assert result.prepare_only_formats == ("BMP (mode P)", "WEBP")
    served = [read_examples(tmp_path / "home", result, split)[0] for split in ("train", "validation", "test")]
    unserved = {path for examples in served for path, ok in zip(examples.paths, examples.served, strict=True) if not ok}
    assert unserved == {"cat/new.webp", "cat/palette.bmp"}


def test_a_file_that_vanished_after_ingest_is_said_and_what_was_decoded_stays(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_CHUNK_FILES", 4)
    monkeypatch.setattr(rows, "SHARD_BYTES", 4 * SIZE * SIZE * 3)
    home, store = tmp_path / "home", StoreConfig()
    index = index_of(home, photos)
    shutil.copytree(photos, tmp_path / "copy")
    (photos / "dog" / "005.jpg").unlink()
    with pytest.raises(SourceChangedError, match=r"'dog/005\.jpg' can no longer be read \(No such file") as caught:
        prepare(home, photos, index, image_size=SIZE, resize="stretch", store=store)
    assert "\n" not in str(caught.value)
    assert list((home / "tmp").iterdir()) == []
    with opened_below(tmp_path / "copy") as opened:
        whole = prepare(home, tmp_path / "copy", index, image_size=SIZE, resize="stretch", store=store)
    assert sorted(opened) == [f"dog/{number:03d}.jpg" for number in range(4, 12)]  # from the four with the vanished one on
    assert sum(len(read_examples(home, whole, split)[0]) for split in ("train", "validation", "test")) == 24
