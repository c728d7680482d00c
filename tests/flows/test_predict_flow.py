"""The predict flow on a real run's model."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.conftest import Runs

pytestmark = pytest.mark.slow


def test_predictions_go_to_a_new_file_of_the_home_each_time(warm: tuple[Runs, Path], tmp_path: Path) -> None:
    from flows.predict_flow import predict_flow

    runs, folder = warm
    before = dict(os.environ)
    written = [Path(predict_flow(str(folder), str(runs.source), home=str(tmp_path))) for _ in range(2)]
    assert dict(os.environ) == before
    assert sorted((tmp_path / "predictions").iterdir()) == sorted(written)
    assert len(pq.read_table(written[0])) == len([path for path in runs.source.rglob("*") if path.is_file()])


def test_images_that_are_not_there_are_refused_before_anything_is_written(warm: tuple[Runs, Path], tmp_path: Path) -> None:
    from flows.predict_flow import predict_flow
    from pipelines.errors import InputError

    with pytest.raises(InputError, match="`IMAGES` must be an image or a folder"):
        predict_flow(str(warm[1]), str(tmp_path / "missing"), out=str(tmp_path / "out.parquet"), home=str(tmp_path / "home"))
    assert not (tmp_path / "out.parquet").exists()
