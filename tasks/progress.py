"""Who hears of progress: set by the command around a flow, found by the tasks in it; the log of the flow run, unless set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from pipelines.progress import Progress, Report


class Listener(Protocol):
    """What a display must understand."""

    def started(self, stage: str) -> None:
        """A stage begins; it may turn out to be a cache hit."""

    def progressed(self, stage: str, progress: Progress) -> None:
        """Work of a stage that really runs."""

    def finished(self, stage: str, *, seconds: float, hit: bool) -> None:
        """A stage ended well; `hit` says that its result was there already."""

    def noted(self, line: str) -> None:
        """Something about the whole run that is worth a line."""


class Silent:
    """A listener that does nothing."""

    def started(self, stage: str) -> None:
        """Ignored."""

    def progressed(self, stage: str, progress: Progress) -> None:
        """Ignored."""

    def finished(self, stage: str, *, seconds: float, hit: bool) -> None:
        """Ignored."""

    def noted(self, line: str) -> None:
        """Ignored."""


class Logged(Silent):
    """Writes milestones to the log of the flow run: what a deployment, where nobody looks on, says of itself."""

    def progressed(self, stage: str, progress: Progress) -> None:
        """Logged where it is a milestone."""
        if progress.milestone:
            from prefect.exceptions import MissingContextError
            from prefect.logging import get_run_logger

            with suppress(MissingContextError):
                get_run_logger().info("%s: %s", stage, progress.detail)


_listener: ContextVar[Listener] = ContextVar("listener", default=Logged())  # noqa: B039 (it holds no state)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Sends what the tasks inside say to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener:
    """The listener in force."""
    return _listener.get()


def reporter(stage: str) -> Report:
    """The function that a task of a stage hands to the work it calls."""
    progressed: Callable[[str, Progress], None] = current_listener().progressed
    return lambda progress: progressed(stage, progress)
