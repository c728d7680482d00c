"""The alias `champion` moves: after a gate's decision, by hand, or back to an earlier champion."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from time import sleep
from typing import TYPE_CHECKING, Any

from pipelines.contracts import Registration
from pipelines.errors import InputError, RunError
from pipelines.registry.connection import Registry, is_missing
from pipelines.registry.moves import Move, champions, is_contested, plan_move, read_moves
from pipelines.registry.records import Record, write_record
from pipelines.registry.register import CHAMPION
from pipelines.registry.versions import GATE_TAG, find_versions, list_models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

GATE_FILE = "gate.json"
_VERDICT_CHARACTERS = 1000


def settle(registry: Registry, client: MlflowClient, registration: Registration, decision: Mapping[str, Any]) -> bool:
    """Writes a gate's decision to the version and, where it says so, makes the version champion: the alias moves last.

    The lock of the registry must be held.

    Args:
        registry: where.
        client: connected to it.
        registration: of the version that was judged, with the champion that it was judged against.
        decision: with `promote`, true or false, and whatever else the gate says; `reasons` are texts. Kept as gate.json.

    Returns:
        Whether the version is champion now. False also where another version became champion since the judgement: the
        candidate is to be judged again, by registering it again.
    """
    name, version = registration.candidate.name, registration.version
    if version is None:
        raise ValueError("a registration without a version can't be settled")
    promoted = bool(decision["promote"])
    if run := client.get_model_version(name, str(version)).run_id:
        client.log_dict(run, dict(decision), GATE_FILE)
    client.set_model_version_tag(name, str(version), GATE_TAG, _verdict(decision, registration.candidate.gate))
    if promoted:
        move = Move(kind="promote", version=version, earlier=registration.champion, reason=_reason(decision))
        if not _move_champion(client, name, move):
            return False
    write_record(registry, registration.candidate, Record(version=version, settled=registration.candidate.gate))
    return promoted


def promote(client: MlflowClient, name: str, version: int, *, reason: str) -> int | None:
    """Makes a version champion by hand; returns the version that was. The lock of the registry must be held.

    Raises:
        InputError: there is no such model or version.
        RunError: another home moved the champion meanwhile.
    """
    check_version(client, name, version)
    earlier, _ = _read(client, name)
    _move_by_hand(client, name, Move(kind="promote", version=version, earlier=earlier, reason=reason))
    return earlier


def rollback(client: MlflowClient, name: str, *, to: int | None, reason: str) -> tuple[int | None, int]:
    """Makes an earlier champion champion again: the one before, or a given one. The lock of the registry must be held.

    Returns:
        The version that was champion, and the one that is now.

    Raises:
        InputError: there is no such model, no earlier champion, or `to` never was one.
        RunError: another home moved the champion meanwhile.
    """
    current, tags = _read(client, name)
    moves = read_moves(tags, current)
    ever = sorted({move.version for move in moves if move.version is not None})
    present = existing_versions(client, name)
    before = [version for version in champions(moves) if version in present]
    while before and before[-1] == current:
        before.pop()
    if to is None and not before:
        raise InputError(
            f"`{name}` has no earlier champion to go back to; `imagemill promote {name} VERSION` takes any version"
        )
    if to is not None and to not in ever:
        names = ", ".join(map(str, ever)) or "none so far"
        raise InputError(f"`--to` must be a version that was champion ({names}); received {to}")
    target = before[-1] if to is None else to
    check_version(client, name, target)
    _move_by_hand(client, name, Move(kind="rollback", version=target, earlier=current, reason=reason))
    return current, target


def check_model(client: MlflowClient, name: str) -> RegisteredModel:
    """The registered model of a name.

    Raises:
        InputError: there is none; the names that there are.
    """
    from mlflow import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        names = ", ".join(repr(model.name) for model in list_models(client)) or "none"
        raise InputError(f"the registry has no model {name!r}; it has {names}") from error


def check_version(client: MlflowClient, name: str, version: int) -> None:
    """Refuses what is not there.

    Raises:
        InputError: naming the versions that are.
    """
    present = existing_versions(client, name)
    if version not in present:
        shown = ", ".join(map(str, present)) or "none"
        raise InputError(f"`{name}` has no version {version}; it has {shown}")


def existing_versions(client: MlflowClient, name: str) -> list[int]:
    """The numbers of a registered model's versions, ascending."""
    return sorted(int(version.version) for version in find_versions(client, name))


def read_history(client: MlflowClient, name: str) -> list[Move]:
    """How the champion came to be what it is, oldest first.

    Raises:
        InputError: there is no such model.
    """
    current, tags = _read(client, name)
    return read_moves(tags, current)


def _move_champion(client: MlflowClient, name: str, move: Move) -> bool:
    """Writes the move down, moves the alias, and notes that it did; False where the alias is not where the move starts."""
    while True:
        current, tags = _read(client, name)
        if current == move.version:
            return True
        if current != move.earlier:
            return False
        key, planned = plan_move(move, tags)
        client.set_registered_model_tag(name, key, planned.model_dump_json())
        # MLflow has no compare-and-set. Whoever writes first and then reads can't miss another who does so too: of two homes
        # at least one sees the other's plan, takes its own back and looks again.
        seen, tags = _read(client, name)
        if seen == current and not is_contested(tags, current):
            break
        client.delete_registered_model_tag(name, key)
        sleep(random.uniform(0.1, 1.0))  # not in step with the other
    client.set_registered_model_alias(name, CHAMPION, str(move.version))
    client.set_registered_model_tag(name, key, planned.model_copy(update={"done": True}).model_dump_json())
    return True


def _move_by_hand(client: MlflowClient, name: str, move: Move) -> None:
    if not _move_champion(client, name, move):
        raise RunError(f"`{name}` got another champion at this very moment, and nothing was changed; look at it and try again")


def _read(client: MlflowClient, name: str) -> tuple[int | None, dict[str, str]]:
    """The champion, or None, and the tags of a registered model."""
    model = check_model(client, name)
    champion = model.aliases.get(CHAMPION)
    return None if champion is None else int(champion), dict(model.tags)


def _reason(decision: Mapping[str, Any]) -> str:
    return "; ".join(str(reason) for reason in decision.get("reasons", ())) or "the gate"


def _verdict(decision: Mapping[str, Any], settings: str) -> str:
    """The decision in short, with the digest of the gate's settings; gate.json has all of it."""
    verdict = {"promote": bool(decision["promote"]), "reason": _reason(decision)[:_VERDICT_CHARACTERS], "settings": settings}
    return json.dumps(verdict, ensure_ascii=False)
