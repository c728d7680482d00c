"""Tables and TFDS data sets through the whole flow, and through `check` and `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from tests.command import run_command
from tests.flows.conftest import Runs
from tests.sources.drawn_tfds import USED, DrawnAnimals, DrawnOneSplit, prepare

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


def write_table(path: Path, **columns: list[Any]) -> Path:
    """A table of the photos beside it, besides what `columns` say."""
    paths = [file.relative_to(path.parent).as_posix() for file in sorted(path.parent.rglob("*.jpg"))]
    table = pa.table({"path": paths, "label": [name.split("/")[0] for name in paths], **columns})
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_the_files_of_a_known_folder_is_the_same_data(copied: Runs, suffix: str) -> None:
    copied.source = write_table(copied.source / f"photos{suffix}")
    assert copied.missed() == []


def test_a_table_s_splits_are_those_of_the_run_and_missing_files_are_named(
    copied: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    splits = (["train"] * 8 + ["val"] * 3 + ["test"] * 3) * 2
    (copied.source / "dog" / "zz.jpg").write_bytes(b"")
    copied.source = write_table(copied.source / "photos.csv", split=[*splits, "test"])
    (copied.source.parent / "dog" / "zz.jpg").unlink()
    folder = copied.run()
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    assert [(row["path"], row["reason"][:7]) for row in rows if row["status"] == "bad"] == [("dog/zz.jpg", "missing")]
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "test")}
    assert counts == {"train": 16, "validation": 6, "test": 6}
    out = tmp_path / "evaluated"
    assert run_command("evaluate", folder, copied.source, "--out", out) == 0
    assert "left out 'dog/zz.jpg': missing" in capfd.readouterr().out
    ours, theirs = (json.loads((place / "metrics.json").read_text()) for place in (out, folder))
    assert ours["confusion_matrix"] == theirs["confusion_matrix"]
    assert run_command("check", copied.source) == 0
    assert "29 files, 1 bad, 2 classes" in capfd.readouterr().out
    with pytest.raises(InputError, match="1 of 29 files are bad"):
        copied.run(max_bad_fraction=0.01)


def test_a_tfds_data_set_is_written_out_once_trained_on_and_judged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data_dir = prepare(tmp_path / "data")
    runs = Runs(tmp_path)
    runs.text = "tfds:drawn_animals"
    changes = {"tfds": {"data_dir": str(data_dir), "download": False}}
    folder = runs.run(**changes)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["split"], metrics["examples"]) == ("test", 2 * DrawnAnimals.counts["test"])
    assert metrics["confusion_matrix"]["labels"] == USED
    assert runs.missed(**changes) == []
    (written,) = runs.home.glob("tfds/drawn_animals-*/written.json")
    before = written.stat().st_mtime_ns
    out = tmp_path / "evaluated"
    assert run_command("evaluate", folder, runs.text, "--home", runs.home, "--out", out) == 0
    assert json.loads((out / "metrics.json").read_text())["confusion_matrix"] == metrics["confusion_matrix"]
    settings = ("--home", runs.home, "--set", f"tfds.data_dir={data_dir}", "--set", "tfds.download=false")
    assert run_command("check", runs.text, *settings) == 0
    assert "24 files, 0 bad, 2 classes" in capfd.readouterr().out
    assert written.stat().st_mtime_ns == before


def test_a_tfds_data_set_is_checked_before_the_flow_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data_dir = prepare(tmp_path / "data", DrawnOneSplit)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    before = sorted(tmp_path.rglob("*"))
    capfd.readouterr()  # TFDS's bars
    for text, settings, message in (
        ("tfds:drawn_one_split", ["tfds.splits.train=learn"], "has no split 'learn'"),
        ("tfds:drawn_one_spilt", ["tfds.download=false"], "(there: drawn_one_split), and `tfds.download` is false"),
        ("tfds:drawn_one_split", ["model.dropout=2"], "`model.dropout`"),
        ("tfds:one two", [], "must be tfds:NAME"),
    ):
        sets = [part for setting in settings for part in ("--set", setting)]
        assert run_command("train", text, *sets) == 2
        error = capfd.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1, error
    assert sorted(tmp_path.rglob("*")) == before
