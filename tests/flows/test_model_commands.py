"""`evaluate` and `predict` with the model of a real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.command import run_command
from tests.flows.conftest import Runs
from tests.images import draw_photo, encode
from tests.sources.folders import write_classes

pytestmark = pytest.mark.slow


def test_evaluate_gives_the_run_s_own_figures_on_its_test_split(
    warm: tuple[Runs, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, folder = warm
    out = tmp_path / "out"
    assert run_command("evaluate", folder, runs.source, "--split", "test", "--out", out) == 0
    ours, theirs = (json.loads((place / "metrics.json").read_text()) for place in (out, folder))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert {**ours, "loss": 0} == {**theirs, "loss": 0}
    assert "trained on" not in capfd.readouterr().out


def test_evaluate_says_when_the_model_has_seen_the_images(warm: tuple[Runs, Path], capfd: pytest.CaptureFixture[str]) -> None:
    runs, folder = warm
    assert run_command("evaluate", folder, runs.source) == 0
    shown = capfd.readouterr().out
    assert "all: 28 images" in shown
    assert "the model was trained on" in shown


def test_evaluate_does_not_write_over_a_run(warm: tuple[Runs, Path], capfd: pytest.CaptureFixture[str]) -> None:
    runs, folder = warm
    assert run_command("evaluate", folder, runs.source, "--out", folder) == 2
    assert "`--out` must be a new or empty folder" in capfd.readouterr().err
    assert (folder / "model.keras").exists()


def test_evaluate_takes_one_class_and_names_bad_files_but_refuses_unknown_classes(
    warm: tuple[Runs, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_classes(tmp_path / "source", {"dog": 3})
    (source / "dog" / "bad.jpg").write_bytes(b"")
    assert run_command("evaluate", warm[1], source) == 0
    shown = capfd.readouterr().out
    assert "all: 3 images" in shown
    assert "left out 'dog/bad.jpg': " in shown
    write_classes(source, {"fox": 1})
    assert run_command("evaluate", warm[1], source) == 2
    assert "classes that the model does not know: 'fox'" in capfd.readouterr().err


def test_predict_gives_the_run_s_probabilities_and_names_what_it_can_not_read(warm: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, folder = warm
    images = tmp_path / "images"
    shutil.copytree(runs.source, images / "deep")
    (images / "a 'quoted\" 🐱\nname.webp").write_bytes(encode(draw_photo(40, 30, 5), "WEBP"))
    (images / "bad.png").write_bytes(b"no image")
    out = tmp_path / "new" / "predictions.parquet"
    assert run_command("predict", folder, images, "--out", out) == 0
    rows = {row["path"]: row for row in pq.read_table(out).to_pylist()}
    assert len(rows) == 30
    assert rows["bad.png"]["predicted"] is None
    assert rows["bad.png"]["reason"]
    assert rows["a 'quoted\" 🐱\nname.webp"]["predicted"] in {"cat", "dog"}
    expected = pq.read_table(folder / "predictions.parquet").to_pylist()
    for row in expected:
        received = rows[f"deep/{row['path']}"]
        np.testing.assert_allclose(received["probability_cat"], row["probability_cat"], atol=1e-5)
        assert received["predicted"] == row["predicted"]


def test_predict_shows_the_classes_of_a_few_images_and_names_unreadable_ones(
    warm: tuple[Runs, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = write_classes(tmp_path / "images", {"x": 2})
    (images / "x" / "bad.png").write_bytes(b"no image")
    out = tmp_path / "predictions.parquet"
    assert run_command("predict", warm[1], images, "--out", out) == 0
    shown = capfd.readouterr().out
    assert "unreadable 'x/bad.png': " in shown
    for row in pq.read_table(out).to_pylist():
        if row["predicted"]:
            assert f"'{row['path']}': {row['predicted']} ({row['probability_' + row['predicted']]:.1%})" in shown


def test_predict_refuses_a_folder_without_a_readable_image(
    warm: tuple[Runs, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    assert run_command("predict", warm[1], tmp_path / "images", "--out", tmp_path / "p.parquet") == 2
    (tmp_path / "images" / "bad.jpg").write_text("x")
    assert run_command("predict", warm[1], tmp_path / "images", "--out", tmp_path / "p.parquet") == 2
    errors = capfd.readouterr().err.splitlines()
    assert "must hold images" in errors[0]
    assert "has no readable image" in errors[1]
    assert not (tmp_path / "p.parquet").exists()
