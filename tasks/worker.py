"""Where the heavy stages of a run happen: one supervised child process for all of them, so that TensorFlow starts once.

A native crash or a lack of memory ends the child, not the flow; what it held of a GPU's memory is free when it has gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, Self

from pydantic_core import to_jsonable_python

from pipelines.errors import RunError
from pipelines.progress import Progress, Report
from tasks.carried_errors import make_error
from tasks.progress import reporter
from tasks.supervised import Child

logger = logging.getLogger(__name__)

# The function of each heavy stage. It takes `report`, and arguments that JSON can carry by its annotations; what it returns is
# a pydantic model, or JSON's.
STAGES: Mapping[str, str] = {
    "prepare": "pipelines.data.prepare:prepare",
    "embed": "pipelines.training.embed:embed",
    "warm_start": "pipelines.warm_start:start_warm",
    "head": "pipelines.training.phases:train_head",
    "fine_tune": "pipelines.training.phases:fine_tune",
    "evaluate": "pipelines.evaluation.evaluate:evaluate",
    "export": "pipelines.export.export:export",
    "gate": "pipelines.gate.gate:judge_challenger",
}


class WorkerLostError(RunError):
    """The child process ended in the middle of a stage: the stage may be tried again, and goes on from its checkpoint."""


class Worker(Protocol):
    """What runs heavy stages."""

    def expect(self) -> None:
        """Says that stages will come, so that what they need may be imported meanwhile."""

    def run(self, stage: str, arguments: Mapping[str, Any], *, report: Report) -> Any:
        """Runs one stage and returns what its function returns.

        Raises: what the stage raises.
        """

    def rest(self) -> None:
        """Lets go of the machine for as long as no stage is run."""


class InProcess:
    """Runs stages in this process: for tests, and to measure what the child costs."""

    def expect(self) -> None:
        """Nothing."""

    def run(self, stage: str, arguments: Mapping[str, Any], *, report: Report) -> Any:
        """Calls the stage's function."""
        return resolve_name(STAGES[stage])(**arguments, report=report)

    def rest(self) -> None:
        """Nothing."""


Slot = Callable[[Report], AbstractContextManager[dict[str, str]]]


@contextmanager
def _no_slot(_: Report) -> Iterator[dict[str, str]]:
    yield {}


class ChildWorker:
    """Runs stages in a child process, which is started when it is first needed, and ends with the block.

    Args:
        logs: folder for the log that the child writes, which stays only where the child was lost; None for standard error.
        slot: gives the block that the child works in a device to itself, waiting for it, and the environment variables that
            name the device to a process.
    """

    def __init__(self, logs: Path | None, *, slot: Slot = _no_slot) -> None:
        self._logs = logs
        self._slot, self._held = slot, ExitStack()
        self._environment: dict[str, str] | None = None  # of the slot; None where there is none
        self._child: Child | None = None
        self._busy = False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the child."""
        self.rest()

    def expect(self) -> None:
        """Starts the child and has it import what all heavy stages need."""
        self._living().ask({"ahead": list(STAGES.values())})

    def run(self, stage: str, arguments: Mapping[str, Any], *, report: Report) -> Any:
        """Runs one stage in the child.

        Raises:
            WorkerLostError: the child ended in the middle; the last lines of its log are given.
            Exception: what the stage raised: ours and the system's errors as they are, others as RuntimeError.
        """
        try:
            if self._environment is None:
                self._environment = self._held.enter_context(self._slot(report))
            asked = {"function": STAGES[stage], "arguments": to_jsonable_python(dict(arguments), round_trip=True)}
            child, self._busy = self._living(), True
            child.ask({**asked, "environment": self._environment})
            return self._await(child, stage, report)
        except BaseException:
            # Ctrl-C, a cancelled flow run, or an error of this side: nobody would read the child's answer.
            if self._busy:
                self._end()
            raise

    def rest(self) -> None:
        """Ends the child if there is one, and then lets go of its device."""
        try:
            self._end()
        finally:
            self._environment = None
            self._held.close()

    def _living(self) -> Child:
        """The child, another one if it has ended meanwhile, which is said."""
        if self._child is not None and not self._child.lives:
            logger.warning("%s", self._bury("the process of the heavy stages, which had nothing to do,"))
        if self._child is None:
            self._child = Child(self._logs)
        return self._child

    def _await(self, child: Child, stage: str, report: Report) -> Any:
        for content in child.answers():
            if "progress" in content:
                report(Progress(**content["progress"]))
                continue
            self._busy = False
            if "error" in content:
                raise make_error(content["error"])
            return resolve_name(content["kind"]).model_validate(content["made"]) if content["kind"] else content["made"]
        raise WorkerLostError(self._bury(f"the process of stage `{stage}`"))

    def _bury(self, what: str) -> str:
        assert self._child is not None
        lost, self._child, self._busy = self._child, None, False
        return lost.tell_loss(what)

    def _end(self) -> None:
        child, save = self._child, self._busy
        self._child, self._busy = None, False
        if child is not None:
            child.end(save=save)


_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


@contextmanager
def use_worker(worker: Worker) -> Iterator[None]:
    """Has the heavy stages of the flows inside run there."""
    token = _worker.set(worker)
    try:
        yield
    finally:
        _worker.reset(token)


@contextmanager
def working(home: Path, *, devices: int = 1, verbose: bool = False) -> Iterator[Worker]:
    """Has the heavy stages inside run in the worker that is in force already, or else in a child of this block.

    Args:
        home: where the child's log goes.
        devices: how many the child takes.
        verbose: the child writes to standard error instead.
    """
    found = _worker.get()
    if found is not None:
        yield found
        return

    def slot(report: Report) -> AbstractContextManager[dict[str, str]]:
        from tasks.slots import device_slot  # imports Prefect

        return device_slot(devices, report=report)

    with ChildWorker(None if verbose else home / "logs", slot=slot) as worker, use_worker(worker):
        yield worker


def current_worker() -> Worker:
    """The worker in force.

    Raises:
        RuntimeError: there is none.
    """
    worker = _worker.get()
    if worker is None:
        raise RuntimeError("a heavy stage needs `tasks.worker.working` around it")
    return worker


def rest_worker() -> None:
    """Has the worker in force, if there is one, let go of the machine."""
    if (worker := _worker.get()) is not None:
        worker.rest()


def run_stage(stage: str, **arguments: Any) -> Any:
    """Runs the function of a heavy stage where the worker in force runs it, and returns what that returns.

    Raises: what the stage raises, and WorkerLostError.
    """
    from tasks.artifacts import progress_shown  # imports Prefect

    with progress_shown(stage, reporter(stage)) as report:
        return current_worker().run(stage, arguments, report=report)
