"""The layouts: which is chosen, and how close an encoded image is to what was stored."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import StoreConfig
from pipelines.store.layouts import choose_layout, open_rows, pack_row
from tests.images import draw_photo


@pytest.mark.parametrize(
    ("config", "images", "layout", "said"),
    [
        (
            StoreConfig(budget_gib=1),
            13_981,
            "decoded",
            r"13,981 images of 160 px are 1024\.0 MiB of pixels, within `store.budget_gib`",
        ),
        (StoreConfig(budget_gib=1), 13_982, "encoded", r"are 1\.0 GiB of pixels, more than `store.budget_gib` \(1\)"),
        (StoreConfig(layout="encoded"), 1, "encoded", "as `store.layout` says"),
        (StoreConfig(layout="decoded", budget_gib=0.1), 10**6, "decoded", r"are 71.5 GiB of pixels, as `store.layout` says"),
    ],
)
def test_the_budget_decides_where_the_recipe_does_not(config: StoreConfig, images: int, layout: str, said: str) -> None:
    chosen, line = choose_layout(config, images=images, image_size=160)
    assert chosen == layout
    assert line.startswith(f"layout {layout}: ")
    assert "\n" not in line
    assert re.search(said, line)


def test_an_encoded_photo_is_nearly_the_same_with_its_colours_in_place() -> None:
    photo = np.asarray(draw_photo(64, 64, seed=3))
    photo = np.concatenate([photo[:, :32], np.full((64, 32, 3), (250, 20, 10), np.uint8)], axis=1)
    rows = open_rows(pa.array([pack_row(photo, layout="encoded")]), layout="encoded", image_size=64)
    out = np.zeros_like(photo)
    rows.read(0, out)
    error = np.abs(out.astype(int) - photo)
    assert error.mean() < 2
    # At the hard edge between two colours too: subsampled colours would be off by dozens there.
    assert error.max() < 40
