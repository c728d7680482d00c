"""The history of an alias, which can't say what the alias does not.

MLflow keeps no history of an alias, and moving it is the last step of a promotion. So each promotion first writes down that
it is about to move the alias from one version to another, as a tag of the registered model, and then moves it. What was
written down counts only where the alias bears witness: whoever moved it noted that it had moved, the next promotion saw it
there, or it is there now. A promotion that was cut off before the alias moved is thus none, and one that was cut off after it
is whole, with or without the note. What somebody moved with MLflow's own tools is seen by the same rule, and shown as such.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from pipelines.contracts import Descriptor

PREFIX = "imagemill.move."
# Between writing down a move and moving lie two requests. A plan of another process that is older was cut off.
PLAN_SECONDS = 10.0
_OURS = uuid.uuid4().hex[:8]  # in the keys of this process's moves: two homes may plan within one millisecond
_REASON_CHARACTERS = 1000


class Move(Descriptor):
    """One step of the alias.

    Attributes:
        kind: `promote`, `rollback`, or `outside` where MLflow's own tools were used.
        version: that the alias pointed at from then on; None where it was removed.
        earlier: that it pointed at before, None where there was none.
        at: when, ISO 8601 in UTC; None where that is not known.
        reason: why, in words.
        done: that it was noted after the alias had moved. Not noted does not mean that it had not.
    """

    kind: Literal["promote", "rollback", "outside"]
    version: int | None
    earlier: int | None
    at: str | None = None
    reason: str = ""
    done: bool = False


def plan_move(move: Move, tags: Mapping[str, str]) -> tuple[str, Move]:
    """A move with its time, and the key of the tag for it: after all that are there, also where a clock goes wrong."""
    now = datetime.now(UTC)
    number_ms = max([round(now.timestamp() * 1000), *(1 + _number(key) for key in tags if key.startswith(PREFIX))])
    at = now.isoformat(timespec="seconds")
    planned = move.model_copy(update={"at": at, "reason": move.reason[:_REASON_CHARACTERS]})
    return f"{PREFIX}{number_ms:015d}-{_OURS}", planned


def is_contested(tags: Mapping[str, str], current: int | None) -> bool:
    """Whether another process is about to move the alias from where it is now, in the same seconds as this one.

    One that was planned by this process and not carried out was cut off: the lock of the registry keeps its moves apart.
    """
    now_ms = time.time() * 1000
    for key, value in tags.items():
        move = _parse(value) if key.startswith(PREFIX) and not key.endswith(_OURS) else None
        young = abs(now_ms - _number(key)) < PLAN_SECONDS * 1000
        if move is not None and young and not move.done and move.earlier == current:
            return True
    return False


def read_moves(tags: Mapping[str, str], current: int | None) -> list[Move]:
    """The moves that the alias bears witness to, oldest first.

    Args:
        tags: of the registered model.
        current: the version that the alias points at.
    """
    planned = [_parse(tags[key]) for key in sorted(tags) if key.startswith(PREFIX)]
    known = [move for move in planned if move is not None]
    seen_before = [*(move.earlier for move in known), current]
    moves: list[Move] = []
    place: int | None = None
    for move, seen_after in zip(known, seen_before[1:], strict=True):
        moves += _outside(place, move.earlier)
        place = move.earlier
        if move.done or seen_after == move.version:
            moves.append(move)
            place = move.version
    return moves + _outside(place, current)


def champions(moves: Sequence[Move]) -> list[int]:
    """The versions that a rollback may go back to, the last one being what the alias points at: each undoes what came after."""
    stack: list[int] = []
    for move in moves:
        if move.version is None:
            continue
        if move.kind == "rollback" and move.version in stack:
            stack = stack[: len(stack) - stack[::-1].index(move.version)]
        elif stack[-1:] != [move.version]:
            stack.append(move.version)
    return stack


def _outside(place: int | None, seen: int | None) -> list[Move]:
    return [] if place == seen else [Move(kind="outside", version=seen, earlier=place)]


def _parse(value: str) -> Move | None:
    try:
        return Move.model_validate_json(value)
    except ValidationError:
        return None


def _number(key: str) -> int:
    text = key.removeprefix(PREFIX).partition("-")[0]
    return int(text) if text.isdecimal() else 0
