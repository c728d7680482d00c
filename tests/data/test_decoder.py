"""Decoding many files: what is known of them beforehand saves work, and changes no pixel."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tensorflow as tf

from pipelines.data.decode import decode_and_resize, jpeg_ratio
from pipelines.data.decoder import FileDecoder, ImageDecoder, SourceFile
from pipelines.errors import RunError, SourceChangedError
from pipelines.sources.pillow import identify_format
from tests.images import draw_photo, encode, variants

SIZE = 32
RATIOS = {0: 31, 1: 63, 2: 127, 4: 255, 8: 700}  # -> the longest shorter side that goes with it, or just a long one


def shrinkable() -> dict[str, tuple[bytes, int]]:
    """JPEGs that lie upright, each with its shorter side."""
    files = {}
    for side in (*RATIOS.values(), SIZE, 64, 128, 257):
        for width, height in ((side, side + 45), (side + 1, side)):
            files[f"{width}x{height}"] = encode(draw_photo(width, height, seed=side), "JPEG", quality=90), side
    photo = draw_photo(150, 133, seed=2)
    for mode, options in (("RGB", {"subsampling": 0}), ("RGB", {"subsampling": 1}), ("RGB", {"progressive": True})):
        files[f"{mode} {options}"] = encode(photo.convert(mode), "JPEG", **options), 133
    return files | {mode: (encode(photo.convert(mode), "JPEG"), 133) for mode in ("L", "CMYK")}


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_what_is_known_beforehand_changes_no_pixel(resize: Literal["stretch", "crop"]) -> None:
    decoder = ImageDecoder(image_size=SIZE, resize=resize)
    seen = set()
    for name, (contents, side) in shrinkable().items():
        ratio = jpeg_ratio(side, least_side=SIZE)
        (pixels,) = decoder.decode_all([contents], ratio=ratio)
        expected = decode_and_resize(tf.constant(contents), image_size=SIZE, resize=resize).numpy()
        np.testing.assert_array_equal(pixels, expected, err_msg=name)
        seen.add(ratio)
    assert seen == set(RATIOS)


@pytest.mark.parametrize(("ratio", "longest"), RATIOS.items())
def test_the_ratio_is_that_of_the_graph(ratio: int, longest: int) -> None:
    assert jpeg_ratio(longest, least_side=SIZE) == ratio
    assert ratio == 8 or jpeg_ratio(longest + 1, least_side=SIZE) == (2 * ratio or 1)


def write(folder: Path, contents: dict[str, tuple[bytes, int]]) -> list[SourceFile]:
    folder.mkdir()
    files = []
    for number, (content, side) in enumerate(contents.values()):
        (folder / str(number)).write_bytes(content)
        image_format = identify_format(content) or "JPEG"
        files.append(SourceFile(hashlib.sha256(content).hexdigest(), str(number), image_format, len(content), side))
    return files


def decode(folder: Path, files: list[SourceFile]) -> list[Any]:
    return list(FileDecoder(folder, image_size=SIZE, resize="crop", layout="decoded").decode(files))


@pytest.mark.parametrize("chunk_bytes", [1, 10_000, 2**30])
def test_rows_keep_their_order_whatever_is_decoded_together(
    chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.data.decoder._CHUNK_BYTES", chunk_bytes)
    others = {name: (contents, 0) for name, contents in variants().items()}
    mixed = dict(sorted({**shrinkable(), **others}.items(), key=lambda item: hashlib.sha256(item[1][0]).digest()))
    files, decoder = write(tmp_path / "files", mixed), ImageDecoder(image_size=SIZE, resize="crop")
    rows = decode(tmp_path / "files", files)
    assert [row.sha256 for row in rows] == [file.sha256 for file in files]
    for (name, (contents, _)), row in zip(mixed.items(), rows, strict=True):
        pixels, served = decoder.decode(contents)
        assert (bytes(row.contents), row.served) == (pixels.tobytes(), served), name


def test_one_file_that_the_graph_refuses_spoils_no_other(tmp_path: Path) -> None:
    photos = {str(seed): (encode(draw_photo(50, 40, seed), "JPEG"), 40) for seed in range(3)}
    files = write(tmp_path / "files", {**photos, "bmp": (encode(draw_photo(50, 40, 9).convert("P"), "BMP"), 40)})
    files[-1] = replace(files[-1], format="JPEG")  # so that it is decoded with the others
    rows = decode(tmp_path / "files", files)
    assert [row.served for row in rows] == [True, True, True, False]
    for (contents, _), row in zip(photos.values(), rows, strict=False):
        expected = decode_and_resize(tf.constant(contents), image_size=SIZE, resize="crop").numpy()
        assert bytes(row.contents) == expected.tobytes()


def test_a_changed_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    contents = {str(seed): (encode(draw_photo(50, 40, seed), "JPEG"), 40) for seed in range(3)}
    files = write(tmp_path / "files", contents)
    (tmp_path / "files" / "1").write_bytes(contents["2"][0])
    with pytest.raises(SourceChangedError, match="'1' changed"):
        decode(tmp_path / "files", files)
    truncated = write(tmp_path / "more", {"0": (contents["0"][0][:-200], 40)})
    with pytest.raises(RunError, match="'0' passed ingest but can't be decoded"):
        decode(tmp_path / "more", truncated)
