"""Measuring a source: every part gets a rate, files that can't be read are left out, nothing stays on the disk."""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipelines import profile_files
from pipelines.config import Recipe
from pipelines.data.decoder import FileDecoder
from pipelines.errors import InputError
from pipelines.profile import measure_source
from pipelines.profile_files import SAMPLE, draw_sample, median_side
from pipelines.progress import Progress
from pipelines.sources.folder import FoundFile, find_images
from tests.images import png_chunk
from tests.small import build_small
from tests.sources.folders import write_classes


def tiny(**changes: object) -> Recipe:
    return Recipe.model_validate({"image_size": 32, "batch_size": 8, "model": {"weights": "none"}, **changes})


@pytest.fixture(autouse=True)
def one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part takes more than it must."""
    monkeypatch.setattr("pipelines.models.lite0.build_lite0", build_small)
    monkeypatch.setattr("pipelines.profile_files.SECONDS", 0.0)


@pytest.mark.slow
def test_every_part_has_a_rate_bad_files_are_left_out_and_nothing_stays(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (photos / "cat" / "text.jpg").write_text("not an image")
    classes, files = find_images(photos)
    files.append(FoundFile("dog/vanished.jpg", "dog", None))
    before = sorted(photos.rglob("*"))
    seen: list[Progress] = []
    profile = measure_source(photos, files, classes, tiny(), images=26, report=seen.append)
    rates = asdict(profile.rates)
    assert rates.pop("colour") is None
    for name, value in rates.items():
        assert value > 0, name
    assert rates["head_wait"] < 1
    assert rates["fine_tune_wait"] < 1
    assert (profile.images, profile.bad_files, profile.layout) == (24, 2, "decoded")
    assert [progress.done for progress in seen] == [0, 1, 2, 3]
    assert sorted(photos.rglob("*")) == before
    assert not list(scratch.glob("imagemill*"))  # TensorFlow keeps files of its own there while the process lives


@pytest.mark.slow
def test_what_the_recipe_leaves_out_has_no_rate_and_a_batch_may_be_all_there_is(photos: Path) -> None:
    (photos / "cat" / "000.jpg").write_bytes(b"\xff\xd8\xff")
    recipe = tiny(fine_tune={"epochs": 0}, augment={"where": "none"}, batch_size=24)
    classes, files = find_images(photos)
    profile = measure_source(photos, files, classes, recipe, images=24)
    assert profile.images == 23
    rates = profile.rates
    assert rates.warp is rates.colour is rates.fine_tune_step is rates.fine_tune_wait is None
    assert rates.head_step > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({"cache": {"mode": "features"}}, ("head",)),
        ({"cache": {"mode": "activations"}, "fine_tune": {"layers": "expand_16"}}, ("head", "fine_tune")),
        ({"cache": {"mode": "off"}}, ()),
    ],
    ids=["features", "activations", "off"],
)
def test_the_input_of_a_phase_is_of_what_it_learns_from(
    changes: dict[str, Any], stored: tuple[str, ...], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, features, activations = 1.0, 2.0, 4.0  # in place of a measured rate: what was measured

    def tell_apart(batches: Any, _: int) -> float:
        spec = batches.element_spec[0]
        return images if spec.dtype == "uint8" else float(len(spec.shape))

    monkeypatch.setattr("pipelines.profile._measure_input", tell_apart)
    classes, files = find_images(photos)
    profile = measure_source(photos, files, classes, tiny(**changes), images=24)
    assert profile.stored == stored
    assert profile.rates.input == images
    assert profile.rates.head_input == (features if "head" in stored else images)
    assert profile.rates.fine_tune_input == (activations if "fine_tune" in stored else images)


@pytest.mark.slow
def test_colours_are_measured_apart_and_the_layout_is_that_of_the_whole_source(photos: Path) -> None:
    classes, files = find_images(photos)
    augment = {"rotation": 0, "zoom": 0, "horizontal_flip": False, "contrast": 0.2}
    recipe = tiny(augment=augment, store={"budget_gib": 1e-3}, fine_tune={"epochs": 0})
    profile = measure_source(photos, files, classes, recipe, images=100_000)
    assert profile.rates.colour is not None
    assert profile.rates.colour > 0
    assert profile.rates.warp is None
    assert profile.layout == "encoded"


@pytest.mark.slow
def test_a_from_scratch_model_has_no_head_step(photos: Path) -> None:
    classes, files = find_images(photos)
    recipe = Recipe.model_validate({"batch_size": 8, "model": {"backbone": "SmallCNN"}})
    rates = measure_source(photos, files, classes, recipe, images=24).rates
    assert rates.head_step is rates.head_wait is None
    assert rates.fine_tune_step is not None
    assert rates.fine_tune_step > 0


def test_the_median_side_is_seen_in_the_headers(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2}, size=40)
    write_classes(tmp_path, {"b": 1}, size=90)
    (tmp_path / "b" / "bad.jpg").write_text("no image")
    _, files = find_images(tmp_path)
    assert median_side(tmp_path, files) == 40
    assert median_side(tmp_path, [file for file in files if "bad" in file.path]) is None


@pytest.mark.slow
def test_a_pipe_and_a_header_that_promises_too_much_are_left_out(photos: Path) -> None:
    os.mkfifo(photos / "cat" / "pipe.jpg")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    (photos / "cat" / "vast.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""))
    classes, files = find_images(photos)
    odd = [file for file in files if "pipe" in file.path or "vast" in file.path]
    assert len(odd) == 2
    assert median_side(photos, odd) is None
    profile = measure_source(photos, files, classes, tiny(fine_tune={"epochs": 0}), images=26)
    assert (profile.images, profile.bad_files) == (24, 2)


def test_decoding_is_timed_when_its_graphs_are_traced(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    original = profile_files.FileDecoder.decode

    def decode(decoder: FileDecoder, files: Any, **options: Any) -> Any:
        events.append(f"decoded {len(files)}")
        return original(decoder, files, **options)

    def time_passes(work: Any, images: int, **_: Any) -> tuple[Any, float]:
        events.append("clock")
        return work(), float(images)

    monkeypatch.setattr(profile_files.FileDecoder, "decode", decode)
    monkeypatch.setattr(profile_files, "time_passes", time_passes)
    _, files = find_images(photos)
    rows = profile_files.measure_files(photos, files, tiny(), {})
    events.clear()
    assert profile_files.measure_decoding(photos, rows, tiny(), layout="decoded") == 24
    assert events == ["decoded 24", "clock", "decoded 24"]


def test_a_source_without_a_readable_image_is_refused(photos: Path) -> None:
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"")
    classes, files = find_images(photos)
    with pytest.raises(InputError, match=r"`SOURCE` has no readable image; the first of 24 is .*empty"):
        measure_source(photos, files, classes, tiny(), images=24)


def test_the_sample_is_the_same_each_time_and_at_least_a_batch() -> None:
    files = [FoundFile(f"a/{number}.jpg", "a", None) for number in range(1000)]
    sample = draw_sample(files, batch_size=32)
    assert len({file.path for file in sample}) == SAMPLE
    assert sample == draw_sample(files, batch_size=32)
    assert len(draw_sample(files, batch_size=400)) == 400
    assert len(draw_sample(files[:10], batch_size=32)) == 10
