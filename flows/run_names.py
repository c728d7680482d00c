"""What flow runs are called, for people who read lists of them: what is done, the data set, and the digest of its content.

Prefect names a run before its first line, when the source was not looked at yet: so it gets a second name when it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from pipelines.errors import one_line
from pipelines.sources.source import TFDS_PREFIX

_DIGEST_CHARACTERS = 12


def plan_name(kind: str) -> str:
    """What is known by the parameters of a run that trains: the recipe's name or the source's, and what an event told of."""
    parameters = flow_run.parameters
    recipe, source, digest = parameters.get("recipe"), parameters["source"], parameters.get("digest")
    name = recipe.get("name") if isinstance(recipe, Mapping) else getattr(recipe, "name", None)
    return join_name(kind, name or (source if source.startswith(TFDS_PREFIX) else Path(source).name), digest)


def name_run(kind: str, dataset: str, digest: str) -> None:
    """Renames the flow run in which this is called; that it can't be renamed is no failure of it."""
    if flow_run.id is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), name=join_name(kind, dataset, digest))
    except HTTPError as error:
        get_run_logger().warning("the run keeps its name: %s", one_line(error))


def join_name(kind: str, dataset: str, digest: str | None) -> str:
    """Such as `retrain photos 1a2b3c4d5e6f`."""
    return f"{kind} {dataset}{f' {digest[:_DIGEST_CHARACTERS]}' if digest else ''}"
