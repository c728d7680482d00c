"""Every Prefect knob of a stage: its cache key, its lock, how its record is written and when a record still counts.

A stage's key is its name, the version of its code, the part of the recipe that it reads and the digests of its inputs;
where the source and the home lie is no part of it. The record that Prefect keeps under the key is JSON, and is a hit
only while the artifacts it names are whole.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

from filelock import FileLock, Timeout
from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import Serializer
from prefect.transactions import IsolationLevel
from pydantic import BaseModel, Field

from pipelines.contracts import DESCRIPTORS, Artifact, Descriptor, PreparedImages, StoredActivations, StoredView
from pipelines.errors import RunError, one_line
from pipelines.progress import Progress
from pipelines.store.artifacts import is_intact
from pipelines.store.shards import damaged_shards
from pipelines.training.checkpoint import Checkpoints
from tasks.artifacts import show_stage
from tasks.progress import current_listener
from tasks.worker import WorkerLostError, rest_worker

# Bumped whenever a stage would make something else of the same inputs; tests/stage_versions.json guards it.
STAGE_VERSIONS: Mapping[str, int] = {
    "ingest": 3,
    "prepare": 2,
    "embed": 1,
    "head": 3,
    "fine_tune": 3,
    "evaluate": 1,
    "export": 2,
}

_QUIET_WAIT_SECONDS = 5.0  # for a lock, before it is said what is waited for

_home: ContextVar[Path] = ContextVar("home")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Place:
    """Where a run happens and how often it saves itself: handed to every stage, and no part of any key.

    Attributes:
        home: absolute path of the home.
        source: absolute path of the folder that the paths of the source's files are relative to.
        checkpoint_every_steps: steps of training between two checkpoints.
    """

    home: Path
    source: Path
    checkpoint_every_steps: int = 200


@contextmanager
def use_home(home: Path) -> Iterator[None]:
    """Sets the home that records are checked against; a record is no hit outside of this."""
    token = _home.set(home)
    try:
        yield
    finally:
        _home.reset(token)


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """The cache key of a stage for its inputs by name.

    A `Place` is left out; a descriptor stands for its artifact's digest.

    Raises:
        TypeError: an input of a kind whose key would not be stable.
    """
    described = {name: _key_part(value) for name, value in inputs.items() if not isinstance(value, Place)}
    content = json.dumps([stage, STAGE_VERSIONS[stage], described], sort_keys=True)
    return f"{stage}-{hashlib.sha256(content.encode()).hexdigest()[:40]}"


def stage_task(stage: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Makes a function the Prefect task of a stage: kept by its key, shown, and tried once more where its process was lost."""

    def make(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            made = function(*args, **kwargs)
            show_stage(_home.get(), stage, made)
            return made

        return task(
            name=stage,
            task_run_name=stage,
            cache_policy=StagePolicy(stage=stage),
            result_serializer=DescriptorSerializer(),
            retries=1,
            retry_condition_fn=_was_lost,
        )(run)

    return make


def _was_lost(stage_task: Task[Any, Any], _: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    if not isinstance(error, WorkerLostError):
        return False
    again = Progress(0, 1, "stages", f"{one_line(error)}; if this was the first time, it is tried again", milestone=True)
    current_listener().progressed(stage_task.name, again)
    return True


def in_home(stage_task: Task[Any, Any], home: Path) -> Task[Any, Any]:
    """A stage's task with its records and locks in a home."""
    policy = cast(StagePolicy, stage_task.cache_policy)
    return stage_task.with_options(
        result_storage=home / "records",
        cache_policy=StagePolicy(
            stage=policy.stage,
            isolation_level=IsolationLevel.SERIALIZABLE,
            lock_manager=FileLocks(home / "locks"),
        ),
    )


def checkpoints_of(place: Place, stage: str, **inputs: Any) -> Checkpoints:
    """The checkpoints of a stage with these inputs: found again by the same work alone, and by the same code version."""
    folder = place.home / "checkpoints" / stage_key(stage, inputs)
    return Checkpoints(folder, every_steps=place.checkpoint_every_steps)


def discard_checkpoints(home: Path, stage: str, inputs: Mapping[str, Any]) -> None:
    """Removes the checkpoints of a stage whose result is recorded."""
    shutil.rmtree(home / "checkpoints" / stage_key(stage, inputs), ignore_errors=True)


def discard_stale_checkpoints(home: Path, *, days: float = 30) -> None:
    """Removes checkpoints that nobody went on with for so long: each takes twice the model's size and more."""
    for folder in (home / "checkpoints").glob("*"):
        with suppress(FileNotFoundError):  # another run may remove its own meanwhile
            if time.time() - folder.stat().st_mtime > days * 86_400:
                shutil.rmtree(folder, ignore_errors=True)


def check_recorded(home: Path, stage: str, inputs: Mapping[str, Any]) -> None:
    """Makes sure that Prefect wrote a stage's record: it only warns when it could not, and the stage would never be a hit.

    Raises:
        RunError: there is no record.
    """
    if not (home / "records" / stage_key(stage, inputs)).is_file():
        raise RunError(
            f"the result of stage `{stage}` could not be recorded under {home / 'records'}; is the disk full or read-only?"
        )


@dataclass
class StagePolicy(CachePolicy):
    """Prefect's view of `stage_key`."""

    stage: str = ""

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002 (Prefect's signature)
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> str:
        """The stage's key."""
        return stage_key(self.stage, inputs)


class DescriptorSerializer(Serializer):  # Prefect refuses a parametrised base
    """Records as JSON, read back only while the artifacts that they name are whole: else the stage runs again."""

    type: str = Field(default="imagemill-descriptor", frozen=True)

    def dumps(self, obj: Descriptor) -> bytes:
        """A descriptor with the name of its class.

        Raises:
            TypeError: not one of `pipelines.contracts.DESCRIPTORS`.
        """
        if type(obj).__name__ not in DESCRIPTORS:
            raise TypeError(f"a stage must return a descriptor of pipelines.contracts; received {type(obj).__name__}")
        return json.dumps({"descriptor": type(obj).__name__, "data": obj.model_dump(mode="json")}).encode()

    def loads(self, blob: bytes) -> Descriptor:
        """The descriptor.

        Raises:
            ValueError: it is of another version, or an artifact that it names is gone or altered.
        """
        record = json.loads(blob)
        descriptor = DESCRIPTORS[record["descriptor"]].model_validate(record["data"])
        if not is_whole(_home.get(), descriptor):
            raise ValueError(f"an artifact of this {record['descriptor']} is gone or altered")
        return descriptor


def is_whole(home: Path, descriptor: Descriptor) -> bool:
    """Whether everything that a descriptor names is there and unaltered."""
    values = [value for _, value in descriptor]
    artifacts = [value for value in values if isinstance(value, Artifact)]
    if not all(is_intact(home, artifact) for artifact in artifacts):
        return False
    parts = [value for value in values if isinstance(value, StoredActivations)]
    if not all(is_whole(home, part) for part in parts):
        return False
    stores: list[PreparedImages | StoredView] = []
    if isinstance(descriptor, PreparedImages):
        stores.append(descriptor)
    if isinstance(descriptor, StoredActivations):
        stores.extend(descriptor.views)
    return not any(damaged_shards(home / store.store, store.shards) for store in stores)


class FileLocks:
    """Prefect's `LockManager` on the file locks of the operating system: a killed process lets go of them by itself.

    Prefect's own `FileSystemLockManager` keeps a file that says "locked" and hangs forever after a kill -9.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, tuple[str, FileLock]] = {}

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Prefect copies policies; the copy must know the locks that are held."""
        return self

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,  # noqa: ARG002 (a lock is held until it is released, or its process ends)
    ) -> bool:
        """Takes the lock of a key, waiting up to `acquire_timeout` seconds (None: without end); True if it is held now."""
        if self.is_lock_holder(key, holder):
            return True
        lock = self._lock(key)
        try:
            lock.acquire(timeout=_QUIET_WAIT_SECONDS if acquire_timeout is None else acquire_timeout)
        except Timeout:
            if acquire_timeout is not None:
                return False
            stage = key.rpartition("-")[0]
            waits = Progress(0, 1, "stages", "waits for another run that is doing the same work", milestone=True)
            current_listener().progressed(stage, waits)
            rest_worker()  # who waits keeps nothing that the other may wait for
            lock.acquire()
        self._held[key] = (holder, lock)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """As `acquire_lock`; flows and tasks here are synchronous, so that nothing else waits for this."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Lets go of a lock.

        Raises:
            ValueError: it is not held by `holder`.
        """
        if not self.is_lock_holder(key, holder):
            raise ValueError(f"{holder} does not hold the lock of {key}")
        _, lock = self._held.pop(key)
        lock.release()

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        return key in self._held or not self.wait_for_lock(key, timeout=0)

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder`, of this process, holds the lock."""
        return key in self._held and self._held[key][0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Waits until nobody holds the lock; False if it took longer than `timeout` seconds."""
        lock = self._lock(key)
        try:
            with lock.acquire(timeout=-1 if timeout is None else timeout):
                return True
        except Timeout:
            return False

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As `wait_for_lock`."""
        return self.wait_for_lock(key, timeout)

    def _lock(self, key: str) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / f"{key}.lock")


def _key_part(value: Any) -> Any:
    if isinstance(value, Descriptor):
        # A descriptor without an artifact would stand for nothing.
        return cast(Any, value).artifact.digest
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _key_part(getattr(value, field.name)) for field in fields(value)}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} can't be part of a stage's key")
