"""Gate: whether a challenger takes the champion's place. Never cached: the champion may be another by now."""

from __future__ import annotations

import re
from pathlib import Path

from prefect import task
from prefect.artifacts import MarkdownArtifact
from prefect.cache_policies import NO_CACHE

from pipelines.config import GateConfig
from pipelines.gate.decide import Decision
from tasks.artifacts import send
from tasks.policies import Place, was_lost
from tasks.worker import run_stage


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE, persist_result=False, retries=1, retry_condition_fn=was_lost)
def gate_task(
    place: Place, dataset: str, challenger: Path, champion: Path | None, config: GateConfig, near_equal_bits: int
) -> Decision:
    """Judges a challenger's run folder against the champion's, and shows the decision as an artifact `gate-<dataset>`."""
    from pipelines.gate.markdown import render_decision

    judged = {"challenger": challenger, "champion": champion, "config": config, "near_equal_bits": near_equal_bits}
    decision: Decision = run_stage("gate", root=place.source, home=place.home, **judged)
    name = re.sub("[^a-z0-9]+", "-", dataset.lower()).strip("-")  # all that Prefect takes
    artifact = MarkdownArtifact(
        markdown=render_decision(decision),
        key=f"gate-{name}".strip("-"),
        description=f"whether the new model of {dataset} was promoted",
    )
    # Not `create_markdown_artifact`, whose client is never closed in Prefect 3.8: a socket stays open for each artifact.
    send(artifact.acreate)
    return decision
