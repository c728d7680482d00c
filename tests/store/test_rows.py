"""The image store: rows come back as they went in, only missing ones are made, damage is noticed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipelines.contracts import StoreLayout
from pipelines.errors import RunError
from pipelines.store import rows as rows_module
from pipelines.store.artifacts import file_digest
from pipelines.store.images import image_store, read_images
from pipelines.store.layouts import pack_row
from pipelines.store.rows import ImageRow, RowStore, fill
from pipelines.store.shards import VERIFIED, damaged_shards, open_shard

SIZE = 8
ROW_BYTES = SIZE * SIZE * 3
DIGESTS = pa.array([str(number) for number in range(10)])


def pixels(digest: str) -> NDArray[np.uint8]:
    return np.random.default_rng(int(digest)).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


class Decoder:
    """Remembers what it was asked for."""

    def __init__(self, layout: StoreLayout = "decoded") -> None:
        self.asked: list[str] = []
        self._layout = layout

    def __call__(self, digests: list[str]) -> Iterator[ImageRow]:
        for digest in digests:
            self.asked.append(digest)
            yield ImageRow(digest, pack_row(pixels(digest), layout=self._layout), served=int(digest) % 2 == 0)


def open_store(home: Path, layout: StoreLayout = "decoded") -> RowStore:
    return image_store(home, home / "images", image_size=SIZE, layout=layout)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowStore:
    monkeypatch.setattr(rows_module, "SHARD_BYTES", 4 * ROW_BYTES)
    return open_store(tmp_path)


@pytest.mark.parametrize("layout", ["decoded", "encoded"])
def test_rows_come_back_in_any_order_with_their_flags(
    tmp_path: Path, layout: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "SHARD_BYTES", 4 * len(pack_row(pixels("0"), layout=layout)))
    store, asked = open_store(tmp_path, layout), pa.array([*"9876543210", "4"])
    places = fill(store, asked, Decoder(layout))
    assert len(store.shard_names()) > 1
    assert places.used_shards() == tuple(store.shard_names())
    assert places.served.tolist() == [int(digest) % 2 == 0 for digest in asked.to_pylist()]
    reader = read_images(tmp_path / "images", places, image_size=SIZE, layout=layout)
    assert len(reader) == 11
    chosen = np.array([9, 0, 4, 4, 10], np.int64)
    gathered = reader.gather(chosen)
    assert (gathered.dtype, gathered.shape) == (np.uint8, (5, *reader.shape))
    expected = np.stack([pixels(asked[int(number)].as_py()) for number in chosen])
    error = np.abs(gathered.astype(int) - expected)
    # Pure noise is the worst that JPEG can meet: half of this with its colours subsampled would be impossible.
    assert error.mean() == 0 if layout == "decoded" else 0 < error.mean() < 6


def test_an_encoded_row_is_less_of_what_compresses(tmp_path: Path) -> None:
    smooth = np.full((64, 64, 3), 100, np.uint8)
    assert len(pack_row(smooth, layout="encoded")) < len(pack_row(smooth, layout="decoded")) / 10


def test_a_batch_is_where_tensorflow_need_not_copy_it(tmp_path: Path, store: RowStore) -> None:
    reader = read_images(tmp_path / "images", fill(store, DIGESTS, Decoder()), image_size=SIZE, layout="decoded")
    assert [reader.gather(np.arange(size)).ctypes.data % 64 for size in range(1, 8)] == [0] * 7


def test_a_later_run_decodes_only_what_is_new(store: RowStore) -> None:
    decoder = Decoder()
    for digests in (["1", "2", "2", "3"], ["2", "3", "4"], ["1", "4"]):
        fill(store, pa.array(digests), decoder)
    assert decoder.asked == ["1", "2", "3", "4"]


def test_places_are_sought_in_the_shards_that_are_named(store: RowStore) -> None:
    places = fill(store, DIGESTS, Decoder())
    first = places.shards[places.shard[0]]
    found = store.locate(DIGESTS, shards=[first])
    assert [number >= 0 for number in found.shard] == [places.shards[number] == first for number in places.shard]
    assert store.locate(DIGESTS, shards=[]).shard.tolist() == [-1] * 10


def damage(path: Path, how: str) -> None:
    content, status = path.read_bytes(), path.stat()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-300])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[:-300] + bytes(300))
        if how.endswith("kept"):
            # Same size and time: that it is altered shows at the next full check, when its verdict is not remembered.
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            (path.parent / VERIFIED).unlink()


@pytest.mark.parametrize("how", ["deleted", "altered", "altered with its time kept", "truncated", "emptied"])
def test_a_damaged_shard_is_named_and_only_its_images_are_made_again(
    tmp_path: Path, store: RowStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    places = fill(store, DIGESTS, Decoder())
    name = places.shards[places.shard[5]]
    assert damaged_shards(tmp_path / "images", store.shard_names()) == []
    damage(tmp_path / "images" / name, how)
    assert damaged_shards(tmp_path / "images", [*places.shards]) == [name]
    decoder = Decoder()
    again = fill(store, DIGESTS, decoder)
    there = [digest for digest, shard in zip(DIGESTS.to_pylist(), places.shard, strict=True) if places.shards[shard] == name]
    assert decoder.asked == there
    reader = read_images(tmp_path / "images", again, image_size=SIZE, layout="decoded")
    np.testing.assert_array_equal(reader.gather(np.array([5]))[0], pixels("5"))
    assert how == "deleted" or f"shard {name} of the image store is damaged" in caplog.text


@pytest.mark.parametrize("how", ["truncated footer", "other columns", "other row size", "no batch"])
def test_a_file_with_the_right_name_that_is_no_shard_of_this_store_is_named_and_remade(
    tmp_path: Path, store: RowStore, how: str
) -> None:
    fill(store, DIGESTS, Decoder())
    name = store.shard_names()[0]
    path, batch = tmp_path / "images" / name, open_shard(tmp_path / "images" / name)
    if how == "truncated footer":
        content = path.read_bytes()[:-20]
    else:
        columns = {"other columns": batch.drop_columns(["served"]), "no batch": batch}
        wider = pa.array([bytes(12)] * len(batch), pa.binary(12))
        columns["other row size"] = batch.set_column(2, "image", wider)
        content = ipc_file(columns[how], empty=how == "no batch")
    path.unlink()
    path.write_bytes(content)
    renamed = f"{file_digest(path)}.arrow"
    path.rename(path.with_name(renamed))
    said: list[str] = []
    decoder = Decoder()
    fill(store, DIGESTS, decoder, say=said.append)
    assert len(decoder.asked) == 4
    assert said == [f"shard {renamed} of the image store is damaged; its images are decoded again"]
    assert renamed not in store.shard_names()


def ipc_file(batch: pa.RecordBatch, *, empty: bool) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        if not empty:
            writer.write_batch(batch)
    contents: bytes = sink.getvalue().to_pybytes()
    return contents


def test_many_shards_are_noted_in_one_write(tmp_path: Path, store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, DIGESTS, Decoder())
    noted = tmp_path / "images" / VERIFIED
    assert noted.exists(), "a shard that was just written need not be hashed again"
    noted.unlink()
    writes: list[Any] = []
    write_json = rows_module.note_intact.__globals__["write_json"]
    monkeypatch.setitem(
        rows_module.note_intact.__globals__, "write_json", lambda *written: (writes.append(written), write_json(*written))
    )
    assert damaged_shards(tmp_path / "images", store.shard_names()) == []
    assert damaged_shards(tmp_path / "images", store.shard_names()) == []
    assert len(store.shard_names()) == 3
    assert len(writes) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_a_spoilt_note_only_costs_another_look(tmp_path: Path, store: RowStore, content: bytes) -> None:
    fill(store, DIGESTS, Decoder())
    (tmp_path / "images" / VERIFIED).write_bytes(content)
    assert damaged_shards(tmp_path / "images", store.shard_names()) == []


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, 6), (ZeroDivisionError, 4)])
def test_work_that_was_cut_short_goes_on_from_what_was_written(store: RowStore, error: type[BaseException], kept: int) -> None:
    def stops(digests: list[str]) -> Iterator[ImageRow]:
        yield from Decoder()(digests[:6])
        raise error

    with pytest.raises(error):
        fill(store, DIGESTS, stops)
    decoder = Decoder()
    fill(store, DIGESTS, decoder)
    assert decoder.asked == DIGESTS.to_pylist()[kept:]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_next_run_goes_on(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "SHARD_BYTES", 400 * ROW_BYTES)  # 75 KiB
    digests, store = pa.array([str(number) for number in range(2000)]), open_store(small_disk)
    with pytest.raises(RunError, match=r"no space left on the device that holds .*; free some and run it again"):
        fill(store, digests, Decoder())
    finished = store.locate(digests)
    kept = digests.filter(pa.array(finished.shard >= 0)).to_pylist()
    assert 400 <= len(kept) < 2000
    assert store.remove_damaged() == []
    assert list((small_disk / "tmp").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    decoder = Decoder()
    places = fill(store, digests, decoder)
    assert decoder.asked == [digest for digest in digests.to_pylist() if digest not in set(kept)]
    reader = read_images(small_disk / "images", places, image_size=SIZE, layout="decoded")
    np.testing.assert_array_equal(reader.gather(np.array([1999]))[0], pixels("1999"))


def test_images_that_were_not_decoded_are_an_error(store: RowStore) -> None:
    with pytest.raises(RunError, match="1 images are still missing from the image store"):
        fill(store, pa.array(["1", "2"]), lambda _: Decoder()(["1"]))


def test_pixels_of_another_size_are_refused(store: RowStore) -> None:
    with pytest.raises(ValueError, match="`contents` must be 192 bytes of pixels; received 12"):
        store.add([ImageRow("1", bytes(12), served=True)])


def test_an_encoded_row_of_another_size_is_said_with_its_shard(tmp_path: Path) -> None:
    store = open_store(tmp_path, "encoded")
    wrong = {"1": pack_row(np.zeros((4, 4, 3), np.uint8), layout="encoded"), "2": b"no JPEG"}
    store.add([ImageRow(digest, contents, served=True) for digest, contents in wrong.items()])
    places = store.locate(pa.array(["1", "2"]))
    reader = read_images(tmp_path / "images", places, image_size=SIZE, layout="encoded")
    for number in range(2):
        with pytest.raises(RunError, match=rf"{store.shard_names()[0]} is damaged \(row {number} is no image of 8 px\)"):
            reader.gather(np.array([number]))
