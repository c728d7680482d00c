"""The gate between real trained models: what takes the champion's place and what does not."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import inference
from pipelines.config import GateConfig
from pipelines.errors import InputError, SourceChangedError
from pipelines.gate.decide import Decision
from pipelines.gate.gate import judge_challenger
from pipelines.store.artifacts import write_json
from pipelines.store.index import read_index, write_index
from tests.flows.conftest import LEARNS, Runs

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


def copy_runs(runs: Runs, folder: Path) -> Runs:
    copied = Runs(folder)
    shutil.copytree(runs.home, copied.home)
    shutil.copytree(runs.source, copied.source)
    return copied


def copy_run(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def judge(source: Path, challenger: Path, champion: Path | None, **changes: Any) -> Decision:
    config = GateConfig.model_validate({**LEARNS["gate"], **changes})
    home = challenger.parent / "answers"
    return judge_challenger(source, challenger, champion, home=home, config=config, near_equal_bits=16)


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), **changes})


def rename_classes(folder: Path, target: Path, names: dict[str, str]) -> Path:
    """The run folder that there would be had the class folders had other names."""
    copy_run(folder, target)
    classes = json.loads((target / "manifest.json").read_text())["classes"]
    change_manifest(target, classes=[names.get(name, name) for name in classes])
    rows = read_index(target / "index.parquet")
    write_index(target / "index.parquet", [{**row, "label": names.get(row["label"], row["label"])} for row in rows])
    return target


def move_to_split(folder: Path, before: str, after: str) -> None:
    """Rewrites the index of a run folder as if images had been drawn otherwise."""
    rows = read_index(folder / "index.parquet")
    write_index(folder / "index.parquet", [{**row, "split": after if row["split"] == before else row["split"]} for row in rows])


def test_a_model_is_no_worse_than_itself_and_the_decision_is_written_down(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = colours
    challenger = copy_run(champion, tmp_path / "challenger")
    decision = judge(runs.source, challenger, champion)
    assert decision.promote
    assert decision.comparison is not None
    assert decision.comparison.champion_accuracy > 0.9  # else the tests below would show nothing
    metrics = json.loads((champion / "metrics.json").read_text())
    assert decision.comparison.challenger_accuracy == pytest.approx(metrics["accuracy"])
    assert decision.fair_images == decision.comparison.images == metrics["examples"] == 36
    written = json.loads((challenger / "gate.json").read_text())
    assert (written["promote"], written["excluded"], written["relabelled"]) == (True, {}, {})
    assert written["champion_sha256"] == written["challenger_sha256"]
    assert written["comparison"] == json.loads(decision.comparison.model_dump_json())


def test_no_model_is_asked_about_an_image_twice(
    colours: tuple[Runs, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.gate import answers

    runs, champion = colours
    challenger = copy_run(champion, tmp_path / "challenger")
    asked: list[int] = []

    def answer(finished: Any, read: Any, **named: Any) -> Any:
        asked.append(len(read))
        return inference.answer(finished, read, **named)

    monkeypatch.setattr(answers, "answer", answer)
    first = judge(runs.source, challenger, champion)
    assert asked == [36]  # both are one model here
    assert judge(runs.source, challenger, champion) == first
    assert asked == [36]
    (remembered,) = (tmp_path / "answers" / "answers").iterdir()
    known = json.loads(remembered.read_text())
    assert len(known) == 36
    write_json(remembered, dict(list(known.items())[:30]))
    assert judge(runs.source, challenger, champion) == first
    assert asked == [36, 6]
    change_manifest(challenger, noted="what may change how it sees an image")
    remembered.write_text("no JSON")
    assert judge(runs.source, challenger, champion) == first
    assert asked == [36, 6, 36, 36]


def test_a_challenger_that_learned_wrong_labels_is_refused(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = copy_runs(colours[0], tmp_path), colours[1]
    wrong = {"red": "green", "green": "blue", "blue": "red"}
    for row in read_index(champion / "index.parquet"):
        if row["split"] != "test":
            name = Path(row["path"]).name
            (runs.source / row["path"]).rename(runs.source / wrong[row["label"]] / f"moved {name}")
    challenger = runs.run(**{**LEARNS, "image_size": 40, "resize": "stretch"})  # each is asked in its own size
    decision = judge(runs.source, challenger, champion)
    assert failed(decision) == ["accuracy", "classes"]
    assert "the challenger is worse by more than 0.1" in decision.reasons[0]
    assert json.loads((challenger / "gate.json").read_text())["promote"] is False
    assert judge(runs.source, copy_run(champion, tmp_path / "right"), challenger).promote


def test_a_challenger_that_is_judged_by_wrong_labels_is_refused(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    """Where every label of the data set is wrong, the better challenger is the one that learned them."""
    runs, champion = colours
    wrong = rename_classes(champion, tmp_path / "wrong", {"red": "green", "green": "red"})
    decision = judge(runs.source, wrong, champion)
    assert decision.comparison is not None
    assert decision.comparison.difference > 0.5
    assert failed(decision) == ["labels"]
    assert "24 of 36 test images that the champion's data held too have another label now" in decision.reasons[0]


def test_a_renamed_class_has_vanished_and_is_new(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = colours
    renamed = rename_classes(champion, tmp_path / "renamed", {"blue": "azure"})
    decision = judge(runs.source, renamed, champion, relabelled=1)
    assert failed(decision) == ["vanished classes"]
    assert "the champion knows 'blue', of which the data has nothing any more" in decision.reasons[0]
    allowed = judge(runs.source, renamed, champion, relabelled=1, vanished_classes="allow")
    assert allowed.promote  # the champion, which answers blue, loses nothing by it
    assert allowed.fair_images == 24
    assert allowed.new_classes["azure"] is not None
    assert allowed.new_classes["azure"].support == 12
    assert allowed.new_classes["azure"].recall > 0.9


def test_images_that_one_of_them_has_seen_are_left_out(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = colours
    challenger = copy_run(champion, tmp_path / "challenger")
    known = copy_run(champion, tmp_path / "known")
    rows = read_index(known / "index.parquet")
    seen = [row["path"] for row in rows if row["split"] == "test"][:5]
    write_index(known / "index.parquet", [{**row, "split": "train"} if row["path"] in seen else row for row in rows])
    decision = judge(runs.source, challenger, known)
    assert decision.promote
    assert (decision.fair_images, decision.excluded_images) == (31, 5)
    assert json.loads((challenger / "gate.json").read_text())["excluded"] == dict.fromkeys(
        seen, "it was in the train split of the champion"
    )


def test_with_no_fair_image_nothing_is_promoted_but_the_first_model(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = colours
    challenger, all_seen = copy_run(champion, tmp_path / "challenger"), copy_run(champion, tmp_path / "seen")
    move_to_split(all_seen, "test", "train")
    decision = judge(runs.source, challenger, all_seen)
    assert failed(decision) == ["images"]
    assert (decision.fair_images, decision.comparison) == (0, None)
    move_to_split(challenger, "test", "validation")  # a source without a test split
    assert failed(judge(runs.source, challenger, champion)) == ["images"]
    first = judge(runs.source, challenger, None)
    assert first.promote
    assert "there is no champion yet" in first.reasons[-1]


@pytest.mark.parametrize("parity", [None, {"images": 0, "max_difference": 0.0}, {"images": 32, "max_difference": 0.5}])
def test_an_export_that_is_not_proved_is_not_even_asked(colours: tuple[Runs, Path], tmp_path: Path, parity: Any) -> None:
    runs, champion = colours
    challenger = copy_run(champion, tmp_path / "challenger")
    change_manifest(challenger, parity=parity)
    for other in (champion, None):
        decision = judge(runs.source, challenger, other)
        assert failed(decision) == ["parity"]
        assert decision.comparison is None


def test_a_test_image_that_changed_since_is_no_test_image(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    runs, champion = copy_runs(colours[0], tmp_path), colours[1]
    path = next(row["path"] for row in read_index(champion / "index.parquet") if row["split"] == "test")
    (runs.source / path).write_bytes(b"other")
    challenger = copy_run(champion, tmp_path / "challenger")
    with pytest.raises(SourceChangedError, match="changed while the run was reading it"):
        judge(runs.source, challenger, champion)
    assert not (challenger / "gate.json").exists()


def test_a_champion_that_is_no_run_folder_is_named(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    challenger = copy_run(colours[1], tmp_path / "challenger")
    with pytest.raises(InputError, match=r"must hold model.keras and manifest.json; '.*nothing' is none"):
        judge(colours[0].source, challenger, tmp_path / "nothing")


def test_the_task_shows_the_decision_as_an_artifact(colours: tuple[Runs, Path], tmp_path: Path) -> None:
    from prefect import flow
    from prefect.artifacts import Artifact

    from tasks.gate import gate_task
    from tasks.policies import Place

    runs, champion = colours
    challenger = copy_run(champion, tmp_path / "challenger")

    @flow(name="gate alone")
    def gate_alone() -> Any:
        config, place = GateConfig.model_validate(LEARNS["gate"]), Place(runs.home, runs.source)
        return gate_task(place, "My 'Colours'", challenger, champion, config, 16)

    assert gate_alone().promote
    artifact: Any = asyncio.run(Artifact.aget("gate-my-colours"))  # `get` leaves its client open
    assert artifact is not None
    assert artifact.data.startswith("# Promoted\n")
    assert "| ✓ | accuracy | the challenger is not worse by more than 0.1" in artifact.data
