"""`imagemill clean` on the home of real runs: what a run needs stays, and what was removed is made again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipelines.store.in_use import home_in_use
from tests.command import run_command
from tests.flows.conftest import STAGES, Runs

DAY = 86_400


def age(home: Path, *, days: float) -> None:
    """Makes everything in a home so much older."""
    for path in home.rglob("*"):
        status = path.stat()
        os.utime(path, (status.st_atime, status.st_mtime - days * DAY))


def sizes(home: Path) -> dict[str, int]:
    """The bytes of every file that is looked at, but for locks."""
    folders = ("records", "artifacts", "images", "activations", "checkpoints")
    files = [path for folder in folders for path in (home / folder).rglob("*") if path.is_file()]
    return {path.relative_to(home).as_posix(): path.stat().st_size for path in files}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_what_the_last_run_used_stays_and_what_only_earlier_ones_did_goes(
    copied: Runs, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sizes(copied.home)
    copied.run(head={"epochs": 1, "learning_rate": 0.5})  # its head, fine-tuning, evaluation and export are of no use later
    for checkpoint in ("old", "young"):
        (copied.home / "checkpoints" / f"head-{checkpoint}").mkdir(parents=True)
    young = copied.home / "checkpoints" / "head-young"
    age(copied.home, days=40)
    os.utime(young)
    assert copied.missed() == []  # all of it is used now, however old
    capfd.readouterr()
    everything = sizes(copied.home)
    assert run_command("clean", "--home", copied.home, "--dry-run") == 0
    assert "would be removed" in capfd.readouterr().out
    assert sizes(copied.home) == everything
    assert run_command("clean", "--home", copied.home) == 0
    shown = capfd.readouterr().out
    left = sizes(copied.home)
    listings = {name for name in before if name.startswith("artifacts/scan/")}
    assert set(before) - listings <= set(left) < set(everything)
    assert [path.name for path in (copied.home / "checkpoints").iterdir()] == ["head-young"]
    row = next(line for line in shown.splitlines() if "results of stages" in line)
    assert int(row.split("│")[2]) == len({Path(name).parts[:3] for name in set(everything) - set(left) if "artifacts" in name})
    assert copied.missed() == []
    assert run_command("clean", "--home", copied.home) == 0
    assert "results of stages" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_everything_may_go_and_is_made_again_with_the_same_splits(copied: Runs) -> None:
    first = (copied.run() / "index.parquet").read_bytes()
    age(copied.home, days=1)
    assert run_command("clean", "--home", copied.home, "--older-than", 0) == 0
    assert sizes(copied.home) == {}
    assert copied.missed() == STAGES
    assert (copied.run() / "index.parquet").read_bytes() == first


def test_nothing_is_removed_under_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "records" / "head-1"
    record.parent.mkdir()
    record.write_text("{}")
    os.utime(record, (0, time.time() - 40 * DAY))
    with home_in_use(tmp_path):
        assert run_command("clean", "--home", tmp_path) == 1
        assert "imagemill: a run uses" in capfd.readouterr().err
        assert record.exists()
    assert run_command("clean", "--home", tmp_path) == 0
    assert not record.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "imagemill: `--home` must be the home of earlier runs; "),
        (("--older-than", "-1"), "should be greater than or equal to 0"),
        (("--older-than", "soon"), "should be a valid number"),
        (("--keep-champions", "0"), "should be greater than or equal to 1"),
    ],
)
def test_bad_requests_are_one_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "artifacts").mkdir()
    assert run_command("clean", "--home", tmp_path, *arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
