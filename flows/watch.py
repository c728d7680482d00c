"""The watch flow: one cheap look at a data folder; when it has changed and is quiet again, the event `dataset.changed`.

A deployment runs it every minute; what it has to know from one run to the next is in the home. The event starts `retrain` by a
trigger of that deployment. Deployable by the entrypoint `flows.watch.watch`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.events import Event, Resource
from prefect.events.clients import get_events_client
from prefect.runtime import flow_run
from pydantic import NonNegativeFloat

from flows.request import default_home, find_watchable
from flows.run_names import name_run
from pipelines.sources.content import digest_source
from pipelines.sources.quiet import judge_look, read_watched, watched_path, write_watched
from pipelines.sources.source import Source
from tasks.progress import reporter
from tasks.server import is_server_lasting

EVENT = "dataset.changed"
SETTLE_SECONDS = 120.0  # longer than the pause between two files of one upload, shorter than anybody waits


def _run_name() -> str:
    return f"watch {flow_run.parameters['dataset'] or Path(flow_run.parameters['source']).name}"


@flow(name="watch", flow_run_name=_run_name, persist_result=False)
def watch(
    source: str, home: str | None = None, dataset: str | None = None, settle_seconds: NonNegativeFloat = SETTLE_SECONDS
) -> dict[str, Any]:
    """Looks at a source once.

    The event is `dataset.changed` of the resource `dataset.NAME`, with the source, its digest and the data set's name in its
    payload. It is sent before it is remembered as sent: after a crash in between it comes twice, and never not at all; who
    hears it twice finds the same content, and does nothing. Without a configured server nothing is sent or remembered as sent.

    Args:
        source: class folders, or a table.
        home: folder of the artifacts and records, see `flows.train.train_model`. Who retrains from the same home need not read
            the files again.
        dataset: name of the data set; default: the source's.
        settle_seconds: how long the content must have been the same before it is announced.

    Returns:
        `state`: changed (and announced); unheard (changed, and no server is configured); settling; known; or busy, while
        another watcher is looking. And the `digest`, but for busy.

    Raises:
        InputError: the source can't be used as it is; nothing is announced.
        RunError: the home can't be written.
    """
    place = Path(home or default_home()).absolute()
    opened = find_watchable(source, home=place)
    name = dataset or opened.name
    path = watched_path(place, opened, dataset=name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        get_run_logger().info("another watcher is looking at %s", source)
        return {"state": "busy"}
    try:
        found = _look(place, opened, source, name, path=path, settle_seconds=settle_seconds)
    finally:
        lock.release()
    name_run("watch", name, found["digest"])
    get_run_logger().info("%s is %s (content %s)", source, found["state"], found["digest"][:12])
    return found


def _look(home: Path, opened: Source, source: str, dataset: str, *, path: Path, settle_seconds: float) -> dict[str, Any]:
    """One look, under the lock of what is remembered at `path`."""
    started = time.time()
    digest = digest_source(home, opened, report=reporter("watch"))
    before, ended = read_watched(path), time.time()
    watched, state = judge_look(before, digest, started=started, ended=ended, settle_seconds=settle_seconds)
    write_watched(path, watched)
    if state != "changed":
        return {"state": state, "digest": digest}
    if not is_server_lasting():
        return {"state": "unheard", "digest": digest}
    asyncio.run(_emit(dataset, {"source": source, "digest": digest, "dataset": dataset}))
    write_watched(path, watched.model_copy(update={"emitted": digest}))
    return {"state": state, "digest": digest}


async def _emit(dataset: str, payload: dict[str, Any]) -> None:
    """Sends the event, and returns when the server has it.

    Not `prefect.events.emit_event`, which hands it to a thread and only logs what goes wrong there: it would be remembered
    as sent.
    """
    resource = Resource({"prefect.resource.id": f"dataset.{dataset}", "prefect.resource.name": dataset})
    async with get_events_client(checkpoint_every=1) as client:
        await client.emit(Event(event=EVENT, resource=resource, payload=payload))
