"""What a decision rests on, gathered before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from pipelines.gate.compare import Comparison


@dataclass(frozen=True)
class Parity:
    """What the challenger's manifest says of the proof of its export.

    Attributes:
        holds: whether it was proved.
        text: the numbers, or what is missing.
    """

    holds: bool
    text: str


class Recall(BaseModel):
    """The challenger on a class that the champion does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    support: int
    recall: float


@dataclass(frozen=True)
class Evidence:
    """All that a decision rests on.

    Attributes:
        challenger_sha256: of its `model.keras`.
        champion_sha256: the same; None where there is no champion.
        parity: of the challenger's export.
        vanished: classes that only the champion knows.
        new: classes that only the challenger knows, with its recall; None where it was not asked about any image.
        fair: images that both may be judged on, those of new classes left out; None where nothing was asked.
        excluded: images that one of them has seen.
        known: fair images that the champion's data set held too.
        relabelled: those of them whose label has changed.
        comparison: on the fair images; None where there are none, or nothing was asked.
        unchanged: on the known ones alone whose label is what it was; None as above.
    """

    challenger_sha256: str
    champion_sha256: str | None
    parity: Parity
    vanished: tuple[str, ...] = ()
    new: Mapping[str, Recall | None] = field(default_factory=dict)
    fair: int | None = None
    excluded: int = 0
    known: int = 0
    relabelled: int = 0
    comparison: Comparison | None = None
    unchanged: Comparison | None = None
