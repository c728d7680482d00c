"""Prepare: every usable image in the store once, decoded as the served graph would, by Pillow only where it must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Recipe
from pipelines.contracts import PreparedImages
from pipelines.data.decode import decode_and_resize
from pipelines.data.prepare import prepare, read_examples
from pipelines.errors import SourceChangedError
from pipelines.slices import ingest_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from tests.images import draw_photo, encode

SIZE = 32


def prepared(home: Path, source: Path) -> PreparedImages:
    index = ingest(home, source, scan_source(home, source), config=ingest_slice(Recipe(), dataset="d"))
    return prepare(home, source, index, image_size=SIZE, resize="stretch")


def test_the_store_holds_the_pixels_of_the_served_graph_with_their_labels(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = prepared(home, photos)
    assert result.prepare_only_formats == ()
    seen = 0
    for split in ("train", "validation", "test"):
        examples, reader = read_examples(home, result, split)
        images = reader.gather(np.arange(len(examples)))
        for path, label, image in zip(examples.paths, examples.labels, images, strict=True):
            assert path.startswith(result.classes[label])
            expected = decode_and_resize((photos / path).read_bytes(), image_size=SIZE, resize="stretch")
            np.testing.assert_array_equal(image, expected)
            seen += 1
    assert seen == 24


def test_formats_that_only_prepare_can_read_are_named(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "new.webp").write_bytes(encode(draw_photo(50, 40, 7), "WEBP"))
    (photos / "cat" / "palette.bmp").write_bytes(encode(draw_photo(50, 40, 8).convert("P"), "BMP"))
    result = prepared(tmp_path / "home", photos)
    assert result.prepare_only_formats == ("BMP (mode P)", "WEBP")
    served = [read_examples(tmp_path / "home", result, split)[0] for split in ("train", "validation", "test")]
    unserved = {path for examples in served for path, ok in zip(examples.paths, examples.served, strict=True) if not ok}
    assert unserved == {"cat/new.webp", "cat/palette.bmp"}


def test_a_file_that_vanished_after_ingest_is_said(photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    index = ingest(home, photos, scan_source(home, photos), config=ingest_slice(Recipe(), dataset="d"))
    (photos / "dog" / "005.jpg").unlink()
    with pytest.raises(SourceChangedError, match=r"'dog/005\.jpg' can no longer be read"):
        prepare(home, photos, index, image_size=SIZE, resize="stretch")
