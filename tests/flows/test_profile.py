"""`imagemill profile` as a user meets it: a table with every part, the verdict, the same numbers as JSON, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import run_command
from tests.small import build_small


@pytest.mark.slow
def test_profile_prints_every_part_and_the_verdict_and_writes_the_same_as_json(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.profile_files.SECONDS", 0.0)
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setattr("pipelines.models.lite0.build_lite0", build_small)
    settings = [part for value in ("model.weights=none", "image_size=32") for part in ("--set", value)]
    assert run_command("profile", photos, *settings, "--json", working / "profile.json") == 0
    assert [path.name for path in working.iterdir()] == ["profile.json"]
    shown = capfd.readouterr().out
    content = json.loads((working / "profile.json").read_text())
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in shown.splitlines() if line.count("│") == 4}
    for name, rate in content["images_per_second"].items():
        assert rows[name.replace("fine_tune", "fine-tune").replace("_", " ")] == (
            "not in it" if rate is None else f"{rate:,.0f}"
        )
    assert {"head wait", "fine-tune wait", "warp", "read"} < rows.keys()
    assert set(content["waiting"]) == {"head", "fine_tune"}
    assert content["verdict"] in shown.splitlines()
    assert "not measured: the start of Prefect, the evaluation and the export" in shown
    assert "24 of 24 images, 32 px" in shown
    assert "batches of 8, since only 19 images train" in shown


def test_profile_names_no_verdict_for_a_source_that_can_not_be_read(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in photos.rglob("*.jpg"):
        path.write_text("no image")
    out = tmp_path / "profile.json"
    assert run_command("profile", photos, "--set", "image_size=32", "--set", "batch_size=8", "--json", out) == 2
    shown = capfd.readouterr()
    assert "has no readable image" in shown.err
    assert "bounds" not in shown.out
    assert not out.exists()
