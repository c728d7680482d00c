"""The champion: one step, always whole, and a history to go back by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import InputError, RunError
from pipelines.registry import moves
from pipelines.registry.connection import connected
from pipelines.registry.fetch import fetch, parse_reference
from pipelines.registry.promote import promote, rollback
from pipelines.registry.versions import list_versions
from tests.registry.conftest import CutOffError, Desk, copy_of, dying_before

CHAMPION = parse_reference("models:/pets@champion")

# What a promotion changes, in this order; then it is written down in the home.
STEPS = [
    "log_dict",
    "set_model_version_tag",
    "set_registered_model_tag",
    "set_registered_model_alias",
    "set_registered_model_tag",
]
ALIAS_MOVES = STEPS.index("set_registered_model_alias")

KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.registry import promote
from pipelines.registry.connection import Registry
from tests.registry import conftest

def die(name, *_):
    print(name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

desk = conftest.Desk(Registry(Path(sys.argv[1])), [])
registration = desk.register(4)
conftest.CutOffError = die
promote.write_record = lambda *_: die("write_record")
with conftest.dying_before(int(sys.argv[2])):
    desk.settle(registration)
"""


def loaded(desk: Desk) -> str:
    """What a person gets who loads the champion; whole, or this raises."""
    return (fetch(desk.registry, CHAMPION) / "model.keras").read_text()


def test_the_gate_s_decision_is_kept_and_carried_out(desk: Desk) -> None:
    assert desk.settle(desk.register(1))
    assert not desk.settle(desk.register(2), promote=False)
    assert desk.champion == 1
    with connected(desk.registry) as client:
        verdicts = [(version.number, version.verdict, version.reason) for version in list_versions(client, "pets")]
        path = client.download_artifacts(client.get_model_version("pets", "2").run_id, "gate.json")
    assert verdicts == [(2, "keep", "worse"), (1, "promote", "better")]
    assert json.loads(Path(path).read_text())["margin"] == 0.01


def test_a_decision_against_another_champion_promotes_nothing(trained: Desk) -> None:
    one, other = trained.register(4), trained.register(5)
    assert trained.settle(one)
    assert not trained.settle(other)
    assert trained.champion == 4
    assert "got another champion" in trained.notes[0]
    again = trained.register(5)
    assert (again.settled, again.champion) == (False, 4)
    assert trained.settle(again)


def test_whatever_step_of_a_promotion_is_cut_off_the_champion_is_whole(trained_home: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    for step in range(20):
        desk = copy_of(trained_home, tmp_path / str(step))
        registration = desk.register(4)
        try:
            with dying_before(step):
                desk.settle(registration)
            break
        except CutOffError as cut:
            steps.append(str(cut))
        moved = len(steps) > 1 and steps[-2] == "set_registered_model_alias"
        assert loaded(desk) == ("model 4" if moved else "model 3")
        assert desk.history == ([1, 2, 3, 4] if moved else [1, 2, 3])
        desk.settle(again) if not (again := desk.register(4)).settled else None
        assert loaded(desk) == "model 4"
        assert desk.history == [1, 2, 3, 4]
    assert steps == STEPS


def test_a_promotion_that_was_cut_off_after_its_last_step_is_one(trained: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    registration = trained.register(4)
    with monkeypatch.context() as patched, pytest.raises(CutOffError):
        patched.setattr("pipelines.registry.promote.write_record", lambda *_: (_ for _ in ()).throw(CutOffError()))
        trained.settle(registration)
    assert loaded(trained) == "model 4"
    assert trained.register(4).settled  # it is not judged against itself
    assert trained.history == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("step", range(len(STEPS) + 1), ids=[*STEPS[:-1], "the_last_tag", "write_record"])
def test_a_promotion_that_is_killed_before_any_step_leaves_the_champion_whole(trained: Desk, step: int) -> None:
    command = [sys.executable, "-c", KILLED, str(trained.registry.home), str(step)]
    died = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert died.stdout.splitlines()[-1] == [*STEPS, "write_record"][step]
    moved = step > ALIAS_MOVES
    assert loaded(trained) == ("model 4" if moved else "model 3")
    assert trained.history == ([1, 2, 3, 4] if moved else [1, 2, 3])
    again = trained.register(4)
    assert (again.version, again.settled) == (4, moved)
    assert moved or trained.settle(again)
    assert loaded(trained) == "model 4"
    assert trained.history == [1, 2, 3, 4]


@pytest.mark.parametrize("step", [0, 1])
def test_a_rollback_that_is_cut_off_is_none(trained: Desk, step: int) -> None:
    with pytest.raises(CutOffError), dying_before(step):
        trained.change(rollback, to=None, reason="")
    assert loaded(trained) == "model 3"
    assert trained.history == [1, 2, 3]
    assert trained.change(rollback, to=None, reason="") == (3, 2)
    assert trained.history == [1, 2, 3, 2]


def test_rollbacks_go_back_one_champion_at_a_time_and_forward_by_version(trained: Desk) -> None:
    assert trained.change(rollback, to=None, reason="") == (3, 2)
    assert trained.change(rollback, to=None, reason="") == (2, 1)
    with pytest.raises(InputError, match="`pets` has no earlier champion to go back to"):
        trained.change(rollback, to=None, reason="")
    assert trained.change(rollback, to=3, reason="") == (1, 3)
    assert trained.history == [1, 2, 3, 2, 1, 3]
    assert loaded(trained) == "model 3"


def test_a_rollback_passes_over_versions_that_were_deleted(trained: Desk) -> None:
    with connected(trained.registry) as client:
        client.delete_model_version("pets", "2")
    assert trained.change(rollback, to=None, reason="") == (3, 1)


def test_only_a_champion_is_rolled_back_to_and_only_a_version_promoted(trained: Desk) -> None:
    trained.register(4)
    with pytest.raises(InputError, match=r"`--to` must be a version that was champion \(1, 2, 3\); received 4"):
        trained.change(rollback, to=4, reason="")
    with pytest.raises(InputError, match="`pets` has no version 9; it has 1, 2, 3, 4"):
        trained.change(promote, 9, reason="")
    assert trained.change(promote, 4, reason="I like it") == 3
    assert trained.champion == 4


def test_what_other_tools_did_is_seen_and_can_be_undone(trained: Desk) -> None:
    with connected(trained.registry) as client:
        client.set_registered_model_alias("pets", "champion", "1")
    assert trained.history == [1, 2, 3, 1]
    assert trained.change(rollback, to=None, reason="") == (1, 3)
    assert trained.history == [1, 2, 3, 1, 3]


@pytest.mark.parametrize("moment", ["set_registered_model_tag", "set_registered_model_alias"])
def test_two_homes_at_once_are_never_both_the_champion_s_successor(
    trained: Desk, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another home begins when this one has looked where the alias is, or is about to move it."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, moment)
    others: list[object] = []

    def meanwhile(self: MlflowClient, *arguments: object) -> None:
        if not others:
            others.append("began")
            with monkeypatch.context() as other_home:
                other_home.setattr(moves, "_OURS", "another")
                other_home.setattr("pipelines.registry.promote.sleep", give_up)
                try:
                    rollback(self, "pets", to=1, reason="by another home")
                except TimeoutError:
                    others.append("waits")
        real(self, *arguments)

    def give_up(_: float) -> None:
        raise TimeoutError

    monkeypatch.setattr(MlflowClient, moment, meanwhile)
    if moment == "set_registered_model_tag":  # nothing of this one is to be seen yet: the other is the first
        with pytest.raises(RunError, match="`pets` got another champion at this very moment"):
            trained.change(rollback, to=2, reason="")
        assert (trained.champion, trained.history, others) == (1, [1, 2, 3, 1], ["began"])
    else:
        assert trained.change(rollback, to=2, reason="") == (3, 2)
        assert (trained.champion, trained.history, others) == (2, [1, 2, 3, 2], ["began", "waits"])


def test_a_plan_of_another_process_that_was_cut_off_holds_nobody_up_for_long(
    trained: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_home:
        other_home.setattr(moves, "_OURS", "another")
        key, planned = moves.plan_move(moves.Move(kind="promote", version=1, earlier=3), {})
    with connected(trained.registry) as client:
        client.set_registered_model_tag("pets", key, planned.model_dump_json())
    waited: list[float] = []

    def pass_time(seconds: float) -> None:
        waited.append(seconds)
        monkeypatch.setattr(moves, "PLAN_SECONDS", 0)

    monkeypatch.setattr("pipelines.registry.promote.sleep", pass_time)
    assert trained.change(rollback, to=None, reason="") == (3, 2)
    assert len(waited) == 1
    assert trained.history == [1, 2, 3, 2]
