"""Every Prefect knob of a stage: its cache key, its lock, how its record is written and when a record still counts.

A stage's key is its name, the version of its code, the part of the recipe that it reads and the digests of its inputs;
where the source and the home lie is no part of it. The record that Prefect keeps under the key is JSON, and is a hit
only while the artifacts it names are whole.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_logger
from prefect.serializers import Serializer
from prefect.transactions import IsolationLevel
from pydantic import BaseModel, Field

from pipelines.contracts import DESCRIPTORS, Artifact, Descriptor, PreparedImages, StoredActivations, StoredView
from pipelines.errors import RunError, one_line
from pipelines.progress import Progress
from pipelines.store.artifacts import is_intact
from pipelines.store.in_use import home_in_use
from pipelines.store.shards import damaged_shards
from pipelines.training.checkpoint import Checkpoints
from tasks.artifacts import show_stage
from tasks.locks import FileLocks
from tasks.progress import current_listener
from tasks.worker import WorkerLostError

# Bumped whenever a stage would make something else of the same inputs; tests/stage_versions.json guards it.
STAGE_VERSIONS: Mapping[str, int] = {
    "ingest": 3,
    "prepare": 2,
    "embed": 4,
    "head": 6,
    "fine_tune": 7,
    "evaluate": 2,
    "export": 3,
}

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
    """Sets the home that records are checked against, a record being no hit outside of this; nothing is removed meanwhile."""
    token = _home.set(home)
    try:
        with home_in_use(home, tell=lambda: current_listener().noted("waits until the home is cleaned")):
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
            retry_condition_fn=was_lost,
        )(run)

    return make


def was_lost(stage_task: Task[Any, Any], _: TaskRun, state: State[Any]) -> bool:
    """Whether a stage failed since its process ended in the middle: Prefect's condition for trying it once more."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, WorkerLostError):
        return False
    line = f"{one_line(error)}; if this was the first time, it is tried again"
    current_listener().progressed(stage_task.name, Progress(0, 1, "stages", line, milestone=True))
    get_logger("imagemill").warning(line)  # the task has ended, and its log with it
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

    Its modification time becomes now: `imagemill clean` goes by when a record was last used.

    Raises:
        RunError: there is no record.
    """
    record = home / "records" / stage_key(stage, inputs)
    if record.is_file():
        os.utime(record)
    else:
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
