"""How long work says where it is: one small frozen event, handed to a function that the caller chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SECONDS_BETWEEN_REPORTS = 0.2  # of work that is done many times a second


@dataclass(frozen=True)
class Progress:
    """Where a stage stands.

    Attributes:
        done: how many units are finished.
        total: how many there are.
        unit: what is counted: `files`, `images`, `epochs`.
        detail: a short text, such as the last epoch's figures.
        images_per_second: of the work under way, or None where it means nothing.
        milestone: worth a line of its own where there is no live display, such as the end of an epoch.
    """

    done: int
    total: int
    unit: str
    detail: str = ""
    images_per_second: float | None = None
    milestone: bool = False


Report = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """A `Report` for callers that don't care."""
