"""Retrainings that were cut off, or that the registry was away for: they go on, and nothing is trained or promoted twice."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipelines.registry import connection
from pipelines.registry.connection import Registry
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.versions import GATE_TAG
from tests.flows.conftest import LEARNS, Runs
from tests.flows.retraining import Place, misses, registry_away, sha256_of
from tests.sources.folders import write_tinted

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


@pytest.fixture
def place(colours: tuple[Runs, Path], tmp_path: Path) -> Place:
    return Place(colours[0], tmp_path)


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
