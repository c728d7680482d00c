"""The command in processes of its own: two at once, Ctrl-C in the middle, and kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.processes import is_running, wait_for
from tests.sources.folders import write_classes

pytestmark = pytest.mark.slow
COMMAND = str(Path(sys.executable).with_name("imagemill"))
SETTINGS = ["image_size=32", "batch_size=8", "model.weights=none", "head.epochs=1", "fine_tune.epochs=1"]


class Place:
    """A home and a source whose class names would break careless code."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.source = write_classes(folder / "my 'photos\"", {'a "cat" 🐱': 12, "dog\n[b]x": 12})
        shutil.copy(self.source / 'a "cat" 🐱' / "000.jpg", self.source / "dog\n[b]x" / "again.jpg")

    def start(self, name: str, *settings: str, home: Path | None = None) -> subprocess.Popen[str]:
        """Starts a train in a session of its own, so that signals reach it and its children alone."""
        command = [COMMAND, "train", str(self.source), "--home", str(home or self.home), "--out", str(self.folder / name)]
        command += [part for setting in [*SETTINGS, *settings] for part in ("--set", setting)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, "text": True}
        # A test run in the background ignores SIGINT, and its children would inherit that.
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, start_new_session=True, **options)

    def cache(self, name: str) -> dict[str, str]:
        """Hit or miss of each stage but scan."""
        stages = json.loads((self.folder / name / "timings.json").read_text())["stages"]
        return {stage: entry["cache"] for stage, entry in stages.items() if stage != "scan"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("processes"))


def test_two_at_once_on_a_new_home_do_the_work_once(place: Place) -> None:
    runs = [place.start("one"), place.start("two")]
    outputs = [run.communicate(timeout=400) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    first, second = place.cache("one"), place.cache("two")
    assert all(sorted([first[stage], second[stage]]) == ["hit", "miss"] for stage in first), (first, second)
    assert 'a "cat" 🐱' in outputs[0][0]
    assert "1 groups of equal or near-equal images lie in more than one class" in outputs[0][0]
    assert """  'a "cat" 🐱/000.jpg', 'dog\\n[b]x/again.jpg'""" in outputs[0][0]
    assert "dog\\n[b]x" in outputs[0][0]


def children_of(run: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]


def find_worker(run: subprocess.Popen[str]) -> int:
    """The process that the heavy stages of a run are in."""
    (worker,) = [pid for pid in children_of(run) if b"tasks.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return worker


def read_until(run: subprocess.Popen[str], start: str) -> list[str]:
    """What a run says up to the line that begins so."""
    assert run.stdout is not None
    lines: list[str] = []
    for line in run.stdout:
        lines.append(line)
        if line.startswith(start):
            return lines
    pytest.fail(f"{lines} and {run.communicate()}")


def test_an_interrupted_run_says_so_it_and_a_killed_one_go_on_and_the_end_is_that_of_an_undisturbed_one(place: Place) -> None:
    # Keras layers in the model, so that an epoch takes long enough to be interrupted.
    settings = ("head.epochs=30", "head.patience=30", "fine_tune.epochs=0", "augment.where=model")
    checkpoints = place.home / "checkpoints"
    with place.start("interrupted", *settings) as run:
        read_until(run, "head: epoch 2/")
        started = children_of(run)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the command and to Prefect's server
        errors = run.communicate(timeout=120)[1]
        assert errors == "imagemill: interrupted; what was done is kept, and the same command goes on from there\n"
        assert run.returncode == 130
        assert not any(map(is_running, started))
    assert not (place.folder / "interrupted").exists()
    assert not list((place.home / "tmp").iterdir())
    assert len(list(checkpoints.iterdir())) == 1
    with place.start("killed", *settings) as run:
        said = read_until(run, "head: epoch ")
        started = children_of(run)
        os.killpg(run.pid, signal.SIGKILL)
    assert len(started) == 2  # the heavy stages, and Prefect's server
    wait_for(lambda: not any(map(is_running, started)))  # by themselves
    assert {"ingest: cached\n", "prepare: cached\n"} <= set(said)
    assert said[-2].startswith("head: goes on from its checkpoint at step ")
    assert len(list(checkpoints.iterdir())) == 1
    with place.start("resumed", *settings) as resumed:
        output = "".join(read_until(resumed, "head: epoch "))
        os.kill(find_worker(resumed), signal.SIGKILL)  # as the system does when memory runs out: the stage is tried again
        rest, errors = resumed.communicate(timeout=400)
    output += rest
    assert resumed.returncode == 0, errors
    assert "head: goes on from its checkpoint at step" in output
    assert "the process of stage `head` ended by SIGKILL" in output
    assert output.count("head: goes on from its checkpoint at step") == 2
    assert "head: epoch 3/" not in output
    history = pq.read_table(place.folder / "resumed" / "history.parquet")["epoch"].to_pylist()
    assert history == list(range(1, 31))
    assert not list(checkpoints.iterdir())
    new_home = place.folder / "new home"
    with place.start("undisturbed", *settings, home=new_home) as run:
        said, errors = run.communicate(timeout=400)
    assert run.returncode == 0, errors
    assert "goes on from its checkpoint" not in said
    assert set(place.cache("undisturbed").values()) == {"miss"}
    assert_same_results(place.folder / "resumed", place.folder / "undisturbed")
    for stage in ("head", "fine_tune", "evaluate"):
        (made,) = (new_home / "artifacts" / stage).iterdir()
        assert (place.home / "artifacts" / stage / made.name).is_dir(), f"other bytes came out of {stage}"


def assert_same_results(folder: Path, other: Path) -> None:
    """All that was learned and measured, but for how long it took."""
    histories = [pq.read_table(each / "history.parquet").drop_columns("seconds") for each in (folder, other)]
    assert histories[0].equals(histories[1])
    assert (folder / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()
    predictions = [pq.read_table(each / "predictions.parquet") for each in (folder, other)]
    assert predictions[0].equals(predictions[1])
