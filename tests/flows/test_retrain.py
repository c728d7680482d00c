"""The retrain flow on Prefect's real temporary server: what is trained, and what is promoted."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.config import Recipe
from pipelines.errors import InputError
from pipelines.sources.folder import FoundFile
from pipelines.sources.source import FolderSource
from pipelines.store.in_use import home_in_use
from pipelines.store.index import read_index
from tests.flows.conftest import LEARNS, Runs
from tests.flows.retraining import REGISTERED, Place, misses, sha256_of
from tests.sources.folders import write_photo, write_tinted

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


@pytest.fixture
def place(colours: tuple[Runs, Path], tmp_path: Path) -> Place:
    return Place(colours[0], tmp_path)


def test_the_first_model_becomes_champion_and_its_content_is_not_trained_on_twice(place: Place) -> None:
    first = place.retrain()
    assert (first["state"], first["promoted"], first["version"], misses(first)) == ("done", True, 1, [])
    assert sha256_of(place.champion) == sha256_of(Path(first["challenger"]))
    assert json.loads((Path(first["challenger"]) / "gate.json").read_text())["promote"] is True
    shutil.rmtree(place.home / "records")  # what it trained again would have to do again
    assert place.retrain() == {**first, "state": "repeated"}
    path = place.source / "red" / "003.png"
    path.rename(path.with_name("renamed.png"))
    assert place.retrain(digest=place.content)["state"] == "repeated"


def test_again_finds_the_same_version(place: Place) -> None:
    first = place.retrain()
    second = place.retrain(again=True)
    assert (second["state"], second["version"], second["promoted"]) == ("done", first["version"], None)
    assert sha256_of(place.champion) == sha256_of(Path(first["challenger"]))


def test_an_event_that_is_out_of_date_does_nothing(place: Place) -> None:
    told = place.content
    (place.source / "red" / "003.png").unlink()
    assert place.retrain(digest=told) == {"state": "moved on", "content": place.content}
    assert not (place.home / "challengers").exists()
    assert place.champion is None


def test_two_at_once_do_the_work_once(place: Place) -> None:
    outcomes: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: outcomes.append(place.retrain())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome["state"] for outcome in outcomes) == ["done", "repeated"]
    assert {**outcomes[0], "state": ""} == {**outcomes[1], "state": ""}


def test_a_challenger_that_the_gate_refuses_leaves_the_champion(place: Place) -> None:
    place.retrain()
    champion = sha256_of(place.champion)
    (place.source / "red" / "003.png").unlink()
    refused = place.retrain(gate={**LEARNS["gate"], "least_images": 1_000})
    assert (refused["state"], refused["promoted"], refused["version"]) == ("done", False, 2)
    assert "`gate.least_images` asks for 1000" in refused["reasons"][0]
    assert sha256_of(place.champion) == champion
    assert json.loads((Path(refused["challenger"]) / "gate.json").read_text())["promote"] is False
    assert place.retrain(gate={**LEARNS["gate"], "least_images": 1_000})["state"] == "repeated"


def test_a_source_that_changes_during_the_run_was_trained_on_as_it_was_looked_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import promotion

    real, find, looks = promotion.register_task, FolderSource.find, []

    def meanwhile(*arguments: Any) -> Any:
        write_photo(place.source / "red" / "new.jpg", seed=7)
        return real(*arguments)

    def look(self: FolderSource, **options: Any) -> tuple[list[str], list[FoundFile]]:
        looks.append(self.root)
        return find(self, **options)

    was = place.content
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "register_task", meanwhile)
        patched.setattr(FolderSource, "find", look)
        outcome = place.retrain()
    assert (outcome["state"], outcome["content"], looks) == ("done", was, [place.source])
    assert "red/new.jpg" not in {row["path"] for row in read_index(Path(outcome["challenger"]) / "index.parquet")}
    assert place.retrain(digest=was)["state"] == "moved on"
    (place.source / "red" / "new.jpg").unlink()
    assert place.retrain(digest=was)["state"] == "repeated"


def test_afterwards_the_home_is_cleaned_where_that_is_asked_for(place: Place) -> None:
    from flows.retrain import retrain

    old = place.home / "logs" / "of-long-ago.log"
    old.parent.mkdir(exist_ok=True)
    old.touch()
    os.utime(old, (0, 0))
    recipe = Recipe.model_validate(REGISTERED)
    with home_in_use(place.home):
        assert retrain(str(place.source), recipe, str(place.home), clean_after_days=30)["state"] == "done"
    assert old.exists()
    assert retrain(str(place.source), recipe, str(place.home), clean_after_days=30)["state"] == "repeated"
    assert not old.exists()
    assert misses(place.retrain(again=True)) == []


def test_new_data_is_learned_from_the_champion_s_weights(place: Place) -> None:
    settings = {"retrain": {"warm_start": True, "epochs": 1}}
    first = place.retrain(**settings)
    champion = sha256_of(place.champion)
    rows = {row["path"]: row for row in read_index(Path(first["challenger"]) / "index.parquet")}
    trained_on = [path for path, row in rows.items() if row["split"] == "train" and row["label"] == "red"]
    (place.source / trained_on[0]).unlink()
    (place.source / trained_on[1]).rename(place.source / "green" / "moved.png")
    write_tinted(place.source, {"blue": 26})
    second = place.retrain(digest=place.content, **settings)
    assert (second["state"], second["promoted"]) == ("done", True)
    challenger = Path(second["challenger"])
    assert sha256_of(place.champion) == sha256_of(challenger) != champion
    now = {row["path"]: row for row in read_index(challenger / "index.parquet")}
    assert trained_on[0] not in now
    assert rows[trained_on[0]]["sha256"] not in {row["sha256"] for row in now.values()}
    moved = now["green/moved.png"]
    assert (moved["sha256"], moved["label"], moved["split"]) == (rows[trained_on[1]]["sha256"], "green", "train")
    assert {"blue/024.png", "blue/025.png"} <= now.keys()
    assert all(now[path]["split"] == row["split"] for path, row in rows.items() if path in now)
    history = pq.read_table(challenger / "history.parquet").to_pylist()
    assert [(row["phase"], row["epoch"]) for row in history] == [("fine_tune", 1)]
    assert json.loads((challenger / "metrics.json").read_text())["accuracy"] > 0.9  # after one epoch of six
    seen = {row["sha256"] for row in read_index(challenger / "seen.parquet")}
    assert seen == {row["sha256"] for row in rows.values() if row["split"] != "test"}
    decision = json.loads((challenger / "gate.json").read_text())
    assert decision["excluded"] == {}
    assert decision["comparison"]["images"] >= 36


def test_a_request_that_makes_no_sense_is_refused_before_anything_is_written(place: Place) -> None:
    from flows.retrain import retrain

    with pytest.raises(InputError, match="`--home` must lie outside of SOURCE"):
        retrain(str(place.source), Recipe(), str(place.source / "home"))
    assert not (place.source / "home").exists()
