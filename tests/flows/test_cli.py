"""The command as a user meets it: exit statuses, one-line errors, files it leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.command import run_command
from tests.images import draw_photo, encode
from tests.sources.folders import write_classes, write_photo

COMMAND = str(Path(sys.executable).with_name("imagemill"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{tmp}/missing"], "does not exist"),
        (["train", "{tmp}/file"], "is a file"),
        (["train", "{tmp}/empty"], "has no sub-folders"),
        (["train", "{tmp}/one"], "at least two classes"),
        (["train", "{tmp}/few"], "class 'b' has 2 and needs 3"),
        (["train", "{tmp}/missing.csv"], "must be an existing table"),
        (["train", "{tmp}/table.csv"], "has no `label`, but 'path'"),
        (["check", "{tmp}/table.csv"], "has no `label`, but 'path'"),
        (["train", "tfds:no such name"], "must be tfds:NAME"),
        (["check", "tfds:mnist", "--home", "{tmp}/file"], "`--home` must be a folder"),
        (["evaluate", "{tmp}", "tfds:mnist", "--home", "{tmp}/file"], "`--home` must be a folder"),
        (["train", "tfds:mnist", "--set", "tfds.data_dir={tmp}", "--set", "tfds.download=false"], "is not prepared"),
        (["check", "tfds:mnist", "--set", "tfds.data_dir={tmp}", "--set", "tfds.download=false"], "is not prepared"),
        (["train", "{photos}", "--set", "tfds.dir=x"], "did you mean `tfds.data_dir`"),
        (["train", "{photos}", "--set", "head.epoch=3"], "did you mean `head.epochs`"),
        (["train", "{photos}", "--set", "model.dropout=2"], "`model.dropout`: .* less than 1; received 2"),
        (["train", "{photos}", "--set", "model.backbone=VGG"], "unknown backbone 'VGG'; choose one of: EfficientNetLite0"),
        (["train", "{photos}", "--config", "{tmp}/none.yaml"], "`--config` can't be read"),
        (["train", "{photos}", "--out", "{tmp}/file"], "`--out` must be a folder"),
        (["train", "{photos}", "--home", "{tmp}/file"], "`--home` must be a folder"),
        (["train", "{photos}", "--out", "{photos}/runs"], "`--out` must lie outside of SOURCE"),
        (
            ["train", "{photos}", "--set", "batch_size=500"],
            "`batch_size` must not be larger than the training split; received 500",
        ),
        (
            ["train", "{photos}", "--set", "model.backbone=Xception", "--set", "image_size=64"],
            "at least 71 for Xception; received 64",
        ),
        (
            ["train", "{photos}", "--set", "batch_size=64", "--set", "resources.devices=64"],
            r"`resources.devices` must be at most what this host has \(.*\); received 64",
        ),
        (["train", "{photos}", "--set", "name=2024-02-30"], "not YAML"),
        (["check", "{photos}", "--out", "{photos}/report"], "`--out` must lie outside of SOURCE"),
        (["demo", "--home", "{tmp}/file"], "`--home` must be a folder"),
        (["train"], "Missing parameter: source"),
        (["train", "{photos}", "--nope"], "No such option: --nope"),
        (["polish"], "No such command"),
        (["check", "{tmp}/missing"], "does not exist"),
        (["profile", "{tmp}/missing"], "does not exist"),
        (["profile", "{tmp}/one"], "at least two classes"),
        (
            ["profile", "{photos}", "--set", "batch_size=500"],
            "`batch_size` must not be larger .* received 500 for 24 files in all: lower it, such as by --set batch_size=16",
        ),
        (["profile", "{photos}", "--set", "model.backbone=Xception", "--set", "image_size=64"], "at least 71 for Xception"),
        (["profile", "{photos}", "--json", "{tmp}/empty"], "`--json` must be a file to write"),
        (["describe", "VGG16"], "`MODEL` must be a run folder, a recipe in YAML or one of EfficientNetLite0,.*'VGG16'"),
        (["describe", "{tmp}/missing.yaml"], "`--config` can't be read: .*missing.yaml"),
        (["describe", "{tmp}/empty"], "`MODEL` must be a run folder with model.keras"),
        (["describe", "{tmp}/empty", "--set", "seed=2"], "`--set` changes a recipe; .* is a run folder"),
        (["describe", "Xception", "--set", "image_size=64"], "at least 71 for Xception; received 64"),
        (["describe", "--classes", "1"], "`--classes` must be at least 2; received 1"),
        (["describe", "--json", "{tmp}/empty"], "`--json` must be a file to write"),
        (["predict", "{tmp}/missing", "{photos}", "--out", "{tmp}/p.parquet"], "`MODEL` must be a run folder"),
        (["predict", "{tmp}", "{tmp}/missing", "--out", "{tmp}/p.parquet"], "`IMAGES` must be an image or a folder"),
        (["evaluate", "{tmp}/missing", "{photos}"], "`MODEL` must be a run folder"),
        (["evaluate", "{tmp}", "{photos}", "--split", "dev"], "`--split` must be one of"),
        (
            ["evaluate", "{tmp}", "{photos}", "--set", "tfds.download=false", "--set", "seed=3"],
            "`--set` here takes tfds.data_dir, tfds.splits.train, .*, tfds.download; received 'seed'",
        ),
        (["evaluate", "{tmp}", "{photos}", "--set", "tfds.dir=x"], "did you mean `tfds.data_dir`"),
    ],
)
def test_a_wrong_request_is_one_line_status_2_and_nothing_written(
    tmp_path: Path,
    photos: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "table.csv").write_text("path\na.jpg\n")
    (tmp_path / "empty").mkdir()
    write_classes(tmp_path / "one", {"a": 5})
    write_classes(tmp_path / "few", {"a": 5, "b": 2})
    before = sorted(tmp_path.rglob("*"))
    filled = [argument.format(tmp=tmp_path, photos=photos) for argument in arguments]
    assert run_command(*filled) == 2
    error = capfd.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert error.startswith("imagemill: ")
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


def test_verify_reaches_the_run(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("flows.cli.run_train", lambda *_, verify, **__: seen.append(verify))
    run_command("train", photos)
    run_command("train", photos, "--verify")
    assert seen == [False, True]


def test_help_names_every_command() -> None:
    done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "check", "profile", "describe", "evaluate", "predict", "demo"):
        assert f"  {command} " in done.stdout


def test_without_arguments_the_help_is_shown_and_the_status_is_2() -> None:
    done = subprocess.run([COMMAND], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Commands:" in done.stderr


def test_check_reports_bad_files_duplicates_leaks_and_conflicts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    write_classes(source / "train", {"a": 6, "b": 6})
    write_classes(source / "test", {"a": 2, "b": 2})
    shutil.rmtree(source / "test")
    for label, seed in (("a", 901), ("b", 902)):
        (source / "test" / label).mkdir(parents=True)
        write_photo(source / "test" / label / "own.jpg", seed=seed)
    leaked = source / "train" / "a" / "000.jpg"
    shutil.copy(leaked, source / "test" / "a" / "leak.jpg")
    photo = draw_photo(48, 48, 77)
    (source / "train" / "a" / "twin.jpg").write_bytes(encode(photo, "JPEG", quality=95))
    (source / "train" / "b" / "twin.png").write_bytes(encode(photo, "PNG"))
    (source / "train" / "b" / "text.jpg").write_text("not an image")
    (source / "train" / "b" / "phone.heic").write_text("of another kind")
    out = tmp_path / "out"
    assert run_command("check", source, "--out", out, "--set", "max_bad_fraction=.2") == 0
    report = json.loads((out / "check.json").read_text())
    assert report["files"] == 18
    assert [bad["path"] for bad in report["bad_files"]] == ["train/b/text.jpg"]
    assert report["leaks"] == [["train/a/000.jpg", "test/a/leak.jpg"]]
    assert report["conflicts"] == [["train/a/twin.jpg", "train/b/twin.png"]]
    assert len(report["duplicates"]) == 2
    shown = capfd.readouterr().out
    assert "18 files, 1 bad, 2 classes" in shown
    assert "leak into training" in shown
    assert report["ignored_files"] == {".heic": 1}
    assert "1 other files are no images by their names: .heic 1" in shown
    assert len(pq.read_table(out / "index.parquet")) == 18


def test_check_shows_ten_groups_and_counts_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_classes(tmp_path / "source", {"a": 12, "b": 12})
    for path in sorted((source / "a").iterdir()):
        shutil.copy(path, source / "b" / f"again-{path.name}")
    assert run_command("check", source) == 0
    shown = capfd.readouterr().out
    heading = "12 groups of images are in more than one class: at least one of the labels is wrong:"
    lines = shown.splitlines()
    start = lines.index(heading)
    assert lines[start + 1] == "  'a/000.jpg', 'b/again-000.jpg'"
    assert lines[start + 11] == "  ... and 2 more; check.json lists them all"


def test_check_still_reports_when_a_run_would_be_refused(
    tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        (photos / "cat" / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff")
    assert run_command("check", photos, "--out", tmp_path / "out") == 2
    shown = capfd.readouterr()
    assert "5 of 29 files are bad, more than `max_bad_fraction` (0.05)" in shown.err
    assert "'cat/bad3.jpg': " in shown.out
    assert len(shown.err.splitlines()) == 1
    assert len(json.loads((tmp_path / "out" / "check.json").read_text())["bad_files"]) == 5
