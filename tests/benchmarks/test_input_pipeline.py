"""The benchmark's arithmetic and its contestants' protocol, without a clock."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.contestants import CONTESTANTS, Settings, measure_endless, measure_passes
from benchmarks.input_pipeline import RATIOS, Contestant, compare

RATE = "images_per_second"


def test_a_ratio_is_taken_over_the_better_of_a_peer_s_settings_and_left_out_without_peers() -> None:
    medians = {
        "imagemill_affine": {RATE: 5000.0},
        "torch_affine_workers0": {RATE: 400.0},
        "torch_affine_workers2": {RATE: 500.0},
        "imagemill_plain": {RATE: 9000.0},
    }
    figures = compare(medians)
    assert figures["warm_affine_over_torch_ratio"] == 10
    assert figures["torch_affine_workers0_images_per_second"] == 400
    assert "warm_plain_ratio" not in figures
    assert "warm_affine_ratio" not in figures


def test_resume_and_drawing_are_late_over_early_and_numbers_over_warp() -> None:
    figures = compare(
        {
            "imagemill_resume": {"seconds_to_step_10": 0.2, "seconds_to_step_100000": 0.3},
            "imagemill_draw": {"milliseconds_draw": 1.0, "milliseconds_warp": 4.0},
        }
    )
    assert figures["resume_ratio"] == pytest.approx(1.5)
    assert figures["draw_over_warp_ratio"] == 0.25


def test_every_ratio_is_of_contestants_that_exist() -> None:
    for ours, others in RATIOS.values():
        assert {ours, *others} <= CONTESTANTS.keys()


def test_passes_are_whole_and_those_made_ahead_do_not_count() -> None:
    pulled = []

    def batches() -> object:
        while True:
            pulled.append(1)
            yield None, range(4)

    assert measure_passes(lambda: [(None, range(4)), (None, range(3))], seconds=0)[RATE] > 0
    assert measure_endless(batches(), steps=5, seconds=0)[RATE] > 0
    assert len(pulled) == 10


@pytest.mark.skipif(importlib.util.find_spec("grain") is not None, reason="grain is installed")
def test_a_peer_that_is_not_installed_is_left_out_with_a_word() -> None:
    settings = Settings(folder="none", home="none", size=32, batch=4)
    with (
        tempfile.TemporaryFile() as errors,
        Contestant("grain_workers0", settings, python=sys.executable, errors=errors) as contestant,
    ):
        assert contestant.skipped == "grain is not installed"


def test_keras_answers_in_json_however_much_it_prints(photos: Path, tmp_path: Path) -> None:
    settings = Settings(folder=str(photos), home=str(tmp_path), size=32, batch=8)
    command = [sys.executable, "-m", "benchmarks.contestants", "keras", json.dumps(asdict(settings))]
    done = subprocess.run(command, input="0\n", capture_output=True, text=True, check=True)
    ready, figures = map(json.loads, done.stdout.splitlines())
    assert ready == {"ready": True}
    assert figures[RATE] > 0


@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name.startswith("imagemill")])
def test_imagemill_s_contestants_measure_the_pipeline_as_it_is(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function, options = CONTESTANTS[name]
    contestant = importlib.import_module(f"benchmarks.contestants.{module}")
    monkeypatch.setattr(contestant, "keep_freed_memory", lambda: True)  # it lasts as long as the process
    (tmp_path / "home").mkdir()
    settings = Settings(folder=str(photos), home=str(tmp_path / "home"), size=32, batch=8)
    figures = getattr(contestant, function)(settings, **options)(0)
    assert figures
    assert all(value > 0 for value in figures.values())
