"""The train flow on Prefect's real temporary server: what is done again when what changes, and what a run leaves behind."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
import yaml

from flows.train import train_model
from pipelines.config import Recipe
from pipelines.errors import InputError
from pipelines.training import phases
from pipelines.training.trainer import Trainer
from tasks.progress import Silent, listening
from tests.command import run_command
from tests.flows.conftest import STAGES, TINY, Runs
from tests.small import small_lite0
from tests.sources.folders import age, alter_in_secret, write_photo

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


def only_folder(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_a_run_leaves_everything_that_was_promised(warm: tuple[Runs, Path]) -> None:
    runs, folder = warm
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {
        "config.yaml",
        "index.parquet",
        "metrics.json",
        "predictions.parquet",
        "history.parquet",
        "timings.json",
        "confusion_matrix.png",
        "model.keras",
        "manifest.json",
        "export/savedmodel/saved_model.pb",
    } <= names
    assert Recipe.model_validate(yaml.safe_load((folder / "config.yaml").read_text())) == Recipe.model_validate(
        {**TINY, "name": runs.source.name}
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert metrics["split"] == "test"
    assert metrics["examples"] == len(predictions) > 0
    index = {row["sha256"]: row for row in pq.read_table(folder / "index.parquet").to_pylist()}
    assert all(index[row["sha256"]]["split"] == "test" for row in predictions)
    right = sum(row["predicted"] == row["label"] for row in predictions)
    assert metrics["accuracy"] == pytest.approx(right / len(predictions))
    history = pq.read_table(folder / "history.parquet").to_pylist()
    assert [(row["phase"], row["epoch"]) for row in history] == [("head", 1), ("fine_tune", 1)]
    timings = json.loads((folder / "timings.json").read_text())
    assert timings["images"] == 28
    assert timings["total_seconds"] >= sum(stage["seconds"] for stage in timings["stages"].values())


def test_a_repeated_run_does_nothing_again(warm: tuple[Runs, Path]) -> None:
    assert warm[0].missed() == []


def test_small_images_are_trained_from_scratch_which_is_said_and_written_down(copied: Runs, tmp_path: Path) -> None:
    class Notes(Silent):
        lines: ClassVar[list[str]] = []

        def noted(self, line: str) -> None:
            self.lines.append(line)

    def train(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
        out = tmp_path / name
        train_model(str(copied.source), Recipe.model_validate(recipe), home=str(copied.home), out=str(out))
        stages: dict[str, Any] = json.loads((out / "timings.json").read_text())["stages"]
        return {stage: times["cache"] for stage, times in stages.items()}

    with listening(Notes()):
        asked = {"fine_tune": {"epochs": 1}, "batch_size": 8, "registry": {"enabled": False}}
        train("first", asked)
        again = train("again", asked)
        written = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())
        repeated = train("repeated", written)
    assert again == repeated == {"scan": "miss", **dict.fromkeys([name for name in STAGES if name != "head"], "hit")}
    assert (written["model"]["backbone"], written["image_size"], written["batch_size"]) == ("SmallCNN", 48, 8)
    assert len(Notes.lines) == 2  # a recipe that says all is not commented on
    assert Notes.lines[0].startswith("images of 48 px (the median's longest side): SmallCNN from scratch at 48 px")
    history = pq.read_table(tmp_path / "first" / "history.parquet").to_pylist()
    assert [(row["phase"], row["epoch"]) for row in history] == [("fine_tune", 1)]


def test_a_moved_home_and_source_are_still_known(copied: Runs) -> None:
    assert copied.missed() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_bad_fraction": 0.5}, ["ingest"]),
        ({"fine_tune": {"epochs": 0}}, ["embed", "fine_tune"]),
        ({"cache": {"mode": "activations", "views": 3}}, ["embed", "head", "fine_tune", "evaluate", "export"]),
        ({"cache": {"mode": "activations", "budget_gib": 30}}, ["embed"]),
        ({"head": {"epochs": 1, "learning_rate": 0.01}}, ["head", "fine_tune", "evaluate", "export"]),
        ({"store": {"budget_gib": 30}}, ["prepare"]),
        ({"image_size": 40}, ["prepare", "embed", "head", "fine_tune", "evaluate", "export"]),
    ],
)
def test_a_changed_value_runs_just_the_stages_that_read_it(copied: Runs, changes: dict[str, Any], expected: list[str]) -> None:
    missed = copied.missed(**changes)
    # Without fine-tuning the result is the head's, so that what comes after depends on whether that was the best anyway.
    assert missed[: len(expected)] == expected
    assert changes.keys() == {"fine_tune"} or missed == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_deleted_artifact_is_made_again_and_nothing_else(copied: Runs, stage: str) -> None:
    shutil.rmtree(next((copied.home / "artifacts" / stage).iterdir()))
    assert copied.missed() == [stage]
    assert copied.missed() == []


@pytest.mark.parametrize(
    ("stage", "name"), [("head", "weights.npz"), ("evaluate", "metrics.json"), ("prepare", "examples.parquet")]
)
def test_an_altered_artifact_is_made_again_and_nothing_else(copied: Runs, stage: str, name: str) -> None:
    path = only_folder(copied.home / "artifacts" / stage) / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert copied.missed() == [stage]


@pytest.mark.parametrize(("stage", "shards"), [("prepare", "images/*/*.arrow"), ("embed", "activations/*/*/*/*.arrow")])
def test_an_altered_shard_is_made_again_and_nothing_else(copied: Runs, stage: str, shards: str) -> None:
    shard = next(copied.home.glob(shards))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert copied.missed() == [stage]
    assert copied.missed() == []


def test_a_shard_that_was_altered_in_secret_is_noticed_when_it_is_asked_for(copied: Runs) -> None:
    assert copied.missed() == []  # and the shard was checked where it lies now
    (shard,) = copied.home.glob("images/*/*.arrow")
    status, content = shard.stat(), bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert copied.missed() == []
    assert copied.missed(verify=True) == ["prepare"]


def test_changed_bytes_are_noticed_and_a_changed_time_is_none(copied: Runs) -> None:
    path = copied.source / "cat" / "003.jpg"
    path.touch()
    assert copied.missed() == []
    write_photo(path, seed=12345)
    assert copied.missed() == STAGES


def test_a_file_altered_in_secret_is_noticed_with_verify(copied: Runs) -> None:
    age(copied.source)
    path = copied.source / "cat" / "003.jpg"
    path.write_bytes(path.read_bytes() + b"1")  # after a JPEG's end: no damage, but another content
    age(copied.source / "cat")
    copied.run()
    alter_in_secret(path, path.read_bytes()[:-1] + b"2")
    assert copied.missed() == []
    assert copied.missed(verify=True)[:2] == ["ingest", "prepare"]
    assert copied.missed(verify=True) == []  # whether files were read is part of no key


def test_new_images_are_the_only_ones_decoded_and_nobody_changes_split(copied: Runs, warm: tuple[Runs, Path]) -> None:
    write_photo(copied.source / "dog" / "new.jpg", seed=777)
    folder = copied.run(head={"epochs": 1}, fine_tune={"epochs": 0})
    shards = list(copied.home.glob("images/*/*.arrow"))
    assert sorted(len(pq_rows(shard)) for shard in shards) == [1, 28]
    before = {row["sha256"]: row["split"] for row in pq.read_table(warm[1] / "index.parquet").to_pylist()}
    after = {row["sha256"]: row["split"] for row in pq.read_table(folder / "index.parquet").to_pylist()}
    assert {digest: after[digest] for digest in before} == before


def test_a_run_that_diverges_ends_with_status_1_names_its_images_and_is_not_tried_again(
    copied: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original, calls = phases.train_head, []

    @functools.wraps(original)
    def train_head(*arguments: Any, **named: Any) -> Any:
        calls.append(named)
        return original(*arguments, **named)

    def diverge(trainer: Trainer, *_: Any) -> float:
        trainer._steps_done.assign_add(1)
        return math.nan

    monkeypatch.setattr(phases, "train_head", train_head)
    monkeypatch.setattr(Trainer, "step", diverge)
    # Prefect is there already, for all tests of this process.
    monkeypatch.setattr("flows.run_commands.start_prefect", lambda *_, **__: None)
    monkeypatch.setattr("flows.run_commands.configure", lambda *_, **__: None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "head": {"epochs": 2}}))
    out = tmp_path / "out"
    with small_lite0():
        status = run_command("train", copied.source, "--home", copied.home, "--config", recipe, "--out", out)
    assert status == 1
    (error,) = capfd.readouterr().err.splitlines()
    said = re.fullmatch(r"imagemill: the loss became nan .* are listed in (.*failure\.json)", error)
    assert said, error
    failure = json.loads(Path(said[1]).read_text())
    images = failure["batches"][0]["images"]
    assert len(images) == TINY["batch_size"]
    assert all((copied.source / image["path"]).is_file() for image in images)
    assert len(calls) == 1
    assert not out.exists()


def pq_rows(shard: Path) -> list[str]:
    import pyarrow as pa

    with pa.memory_map(str(shard)) as source:
        digests: list[str] = pa.ipc.open_file(source).get_batch(0).column("sha256").to_pylist()
    return digests


def test_a_bad_file_is_named_and_the_run_goes_on(copied: Runs) -> None:
    (copied.source / "cat" / "zero.jpg").write_bytes(b"")
    folder = copied.run(max_bad_fraction=0.05)
    bad = [row for row in pq.read_table(folder / "index.parquet").to_pylist() if row["status"] == "bad"]
    assert [(row["path"], row["split"]) for row in bad] == [("cat/zero.jpg", None)]
    assert "0 bytes" in bad[0]["reason"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 500}, r"`batch_size` must not be larger than the training split; received 500 for 28 files"),
        ({"model": {"weights": "/no/such/file"}}, "`model.weights` must be imagenet, none or an existing file"),
    ],
)
def test_a_request_that_can_not_be_carried_out_is_refused(copied: Runs, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        copied.run(**changes)
    assert not (copied.home.parent / "runs").exists()


def test_results_are_not_written_over_other_things(copied: Runs, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for out, message in ((tmp_path / "mine", "holds 'thesis.txt'"), (copied.source / "runs", "must lie outside of SOURCE")):
        with pytest.raises(InputError, match=message):
            train_model(str(copied.source), Recipe.model_validate(TINY), home=str(copied.home), out=str(out))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_an_earlier_run_is_replaced(copied: Runs, warm: tuple[Runs, Path], tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(warm[1], out)
    (out / "metrics.json").write_text("stale")
    train_model(str(copied.source), Recipe.model_validate(TINY), home=str(copied.home), out=str(out))
    assert (out / "metrics.json").read_bytes() == (warm[1] / "metrics.json").read_bytes()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"`--out` must be .* holds 'notes.txt'"):
        train_model(str(copied.source), Recipe.model_validate(TINY), home=str(copied.home), out=str(out))
    assert (out / "notes.txt").read_text() == "mine"
