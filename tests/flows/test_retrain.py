"""The retrain flow on Prefect's real temporary server: what is trained, what is promoted, and what a crash leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.promotion import find_champion
from pipelines.config import Recipe
from pipelines.errors import InputError, RegistryUnreachableError
from pipelines.registry import connection
from pipelines.registry.connection import Registry
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.versions import GATE_TAG
from pipelines.sources.content import digest_source
from pipelines.sources.folder import FoundFile
from pipelines.sources.source import FolderSource
from pipelines.store.artifacts import file_digest
from pipelines.store.in_use import home_in_use
from pipelines.store.index import read_index
from tests.flows.conftest import LEARNS, TINY, Runs
from tests.sources.folders import write_photo, write_tinted

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


REGISTERED = {**TINY, **LEARNS, "registry": {"enabled": True}}


class Place:
    """A copy of a home that knows all stages of the champion's training, and of its source."""

    def __init__(self, runs: Runs, folder: Path) -> None:
        self.home, self.source = folder / "home", folder / "photos"
        shutil.copytree(runs.home, self.home)
        shutil.copytree(runs.source, self.source)

    def retrain(self, *, digest: str | None = None, again: bool = False, **changes: Any) -> dict[str, Any]:
        from flows.retrain import retrain

        recipe = Recipe.model_validate({**REGISTERED, **changes})
        outcome: dict[str, Any] = retrain(str(self.source), recipe, str(self.home), digest, again)
        return outcome

    @property
    def champion(self) -> Path | None:
        return find_champion(Recipe.model_validate(REGISTERED), home=self.home, dataset="photos")

    @property
    def content(self) -> str:
        return digest_source(self.home, FolderSource(self.source))


@pytest.fixture
def place(colours: tuple[Runs, Path], tmp_path: Path) -> Place:
    return Place(colours[0], tmp_path)


def misses(outcome: Mapping[str, Any]) -> list[str]:
    """The stages that a retraining had to do, but for the scan."""
    stages = json.loads((Path(outcome["challenger"]) / "timings.json").read_text())["stages"]
    return [name for name, stage in stages.items() if stage["cache"] == "miss" and name != "scan"]


@contextmanager
def registry_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nobody answered at the registry's address, in the block."""

    def unreachable(registry: Registry) -> None:
        raise RegistryUnreachableError(f"the registry at {registry.address} does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "check_answers", unreachable)
        yield


def sha256_of(folder: Path | None) -> str:
    assert folder is not None
    return file_digest(folder / "model.keras")


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


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("step", ["register_task", "gate_task", "promote_task"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_cut_off_goes_on_and_is_promoted_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str, when: str, warm_start: bool
) -> None:
    settings = {"retrain": {"warm_start": warm_start, "epochs": 1}}
    from flows import promotion

    real = getattr(promotion, step)

    def die(*arguments: Any) -> None:
        if when == "after":
            real(*arguments)
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(promotion, step, die)
        with pytest.raises(ConnectionError):
            place.retrain(**settings)
    assert (place.champion is not None) == (step == "promote_task" and when == "after")
    outcome = place.retrain(**settings)
    assert (outcome["state"], outcome["version"], misses(outcome)) == ("done", 1, [])
    assert sha256_of(place.champion) == sha256_of(Path(outcome["challenger"]))


def test_what_began_while_the_registry_was_away_is_not_trained_again_from_the_champion(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"retrain": {"warm_start": True, "epochs": 1}}
    place.retrain(**settings)
    write_tinted(place.source, {"blue": 26})
    with registry_away(monkeypatch):
        assert place.retrain(**settings)["state"] == "waits"
    outcome = place.retrain(**settings)
    assert (outcome["state"], outcome["version"], misses(outcome)) == ("done", 2, [])
    assert not (Path(outcome["challenger"]) / "seen.parquet").exists()  # it began with nobody's weights
    assert not list((place.home / "retrained").glob("*.start"))


def test_a_registry_that_goes_away_before_the_judgement_fails_no_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import promotion

    place.retrain()
    champion, real = sha256_of(place.champion), promotion.register_task
    write_tinted(place.source, {"blue": 26})
    with ExitStack() as stack:

        def register_and_leave(*arguments: Any) -> Any:
            registration = real(*arguments)
            stack.enter_context(registry_away(monkeypatch))
            return registration

        stack.enter_context(monkeypatch.context()).setattr(promotion, "register_task", register_and_leave)
        waits = place.retrain()
    assert (waits["state"], waits["version"], waits["promoted"]) == ("waits", 2, None)
    assert sha256_of(place.champion) == champion
    outcome = place.retrain()
    assert (outcome["state"], outcome["version"], outcome["promoted"], misses(outcome)) == ("done", 2, True, [])


def test_a_repetition_delivers_what_waits_for_the_registry(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import promotion

    registry, real = Registry(place.home), promotion.promote_task
    settings = {"gate": {**LEARNS["gate"], "least_images": 1_000}}
    place.retrain()
    write_tinted(place.source, {"blue": 26})

    def promote_away(*arguments: Any) -> Any:
        with registry_away(monkeypatch):
            return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(promotion, "promote_task", promote_away)
        assert place.retrain(**settings)["promoted"] is False
    with registry_away(monkeypatch):
        assert place.retrain(**settings)["state"] == "repeated"
    assert len(waiting_entries(registry)) == 1
    assert place.retrain(**settings)["state"] == "repeated"
    assert waiting_entries(registry) == []
    with connection.connected(registry) as client:
        assert client.get_model_version("photos", "2").tags[GATE_TAG].startswith('{"promote": false')


def test_a_start_that_is_gone_is_chosen_anew(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows import promotion, retrain

    settings = {"retrain": {"warm_start": True, "epochs": 1}}
    place.retrain(**settings)
    write_tinted(place.source, {"blue": 26})
    fetched = Path(shutil.copytree(str(place.champion), tmp_path / "fetched"))

    def die(*arguments: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(retrain, "find_champion", lambda *_, **__: fetched)
        patched.setattr(promotion, "register_task", die)
        with pytest.raises(ConnectionError):
            place.retrain(**settings)
    shutil.rmtree(fetched)  # as `imagemill clean` may
    outcome = place.retrain(**settings)
    assert (outcome["state"], outcome["version"], misses(outcome)) == ("done", 2, [])  # equal weights: nothing is done again


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
