"""Promote: what the gate decided about a registered version is written down and carried out; the alias moves last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.contracts import Registration
from pipelines.registry.connection import Registry
from pipelines.registry.service import settle_run
from tasks.progress import current_listener


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_task(registry: Registry, registration: Registration, decision: Mapping[str, Any]) -> bool:
    """Makes the version champion where the decision's `promote` says so; returns whether it is."""
    return settle_run(registry, registration, decision, note=current_listener().noted)
