"""The image store: rows come back as they went in, only missing ones are made, damage is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import RunError
from pipelines.store import images as images_module
from pipelines.store.images import DecodedImage, ImageStore, RowReader, fill, is_shard_intact

SIZE = 8


def image(digest: str) -> DecodedImage:
    pixels = np.random.default_rng(int(digest)).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return DecodedImage(digest, pixels, served=int(digest) % 2 == 0)


class Decoder:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, digests: list[str]) -> Iterator[DecodedImage]:
        for digest in digests:
            self.asked.append(digest)
            yield image(digest)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setattr(images_module, "SHARD_BYTES", 4 * SIZE * SIZE * 3)  # four rows
    return ImageStore(tmp_path, tmp_path / "images", image_size=SIZE)


def test_rows_come_back_in_any_order_with_their_flags(tmp_path: Path, store: ImageStore) -> None:
    digests = [str(number) for number in range(10)]
    places = fill(store, digests, Decoder())
    assert len(store.shard_names()) == 3
    assert [places[digest].served for digest in digests] == [int(digest) % 2 == 0 for digest in digests]
    reader = RowReader(tmp_path / "images", [places[digest] for digest in digests], image_size=SIZE)
    chosen = np.array([9, 0, 4, 4, 7], np.int64)
    gathered = reader.gather(chosen)
    assert gathered.dtype == np.uint8
    np.testing.assert_array_equal(gathered, np.stack([image(str(number)).pixels for number in chosen]))


def test_a_later_run_decodes_only_what_is_new(store: ImageStore) -> None:
    decoder = Decoder()
    fill(store, ["1", "2", "2", "3"], decoder)
    fill(store, ["2", "3", "4"], decoder)
    fill(store, ["1", "4"], decoder)
    assert decoder.asked == ["1", "2", "3", "4"]


@pytest.mark.parametrize("how", ["deleted", "altered", "altered with its time kept", "truncated"])
def test_a_damaged_shard_is_named_and_only_its_images_are_made_again(
    tmp_path: Path, store: ImageStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    places = fill(store, [str(number) for number in range(8)], Decoder())
    name = places["5"].shard
    path = tmp_path / "images" / name
    assert is_shard_intact(tmp_path / "images", name)
    content, status = path.read_bytes(), path.stat()
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-300])
    else:
        path.write_bytes(content[:-300] + bytes(300))
        if how.endswith("kept"):
            # Same size and time: that it is altered shows at the next full check, when its verdict is not remembered.
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            (tmp_path / "images" / images_module.VERIFIED).unlink()
    assert not is_shard_intact(tmp_path / "images", name)
    decoder = Decoder()
    again = fill(store, [str(number) for number in range(8)], decoder)
    assert sorted(decoder.asked) == sorted(digest for digest, place in places.items() if place.shard == name)
    reader = RowReader(tmp_path / "images", [again["5"]], image_size=SIZE)
    np.testing.assert_array_equal(reader.gather(np.zeros(1, np.int64))[0], image("5").pixels)
    assert how == "deleted" or f"shard {name} of the image store is damaged" in caplog.text


def test_work_that_was_cut_short_goes_on_from_the_finished_shards(store: ImageStore) -> None:
    def stops(digests: list[str]) -> Iterator[DecodedImage]:
        for digest in digests[:6]:
            yield image(digest)
        raise KeyboardInterrupt

    digests = [str(number) for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        fill(store, digests, stops)
    decoder = Decoder()
    fill(store, digests, decoder)
    assert decoder.asked == digests[4:]


def test_images_that_were_not_decoded_are_an_error(store: ImageStore) -> None:
    with pytest.raises(RunError, match="1 images are still missing from the image store"):
        fill(store, ["1", "2"], lambda _: [image("1")])


def test_pixels_of_another_shape_are_refused(store: ImageStore) -> None:
    wrong = DecodedImage("1", np.zeros((SIZE, SIZE), np.uint8), served=True)
    with pytest.raises(ValueError, match="`pixels` must be uint8"):
        store.add([wrong])
