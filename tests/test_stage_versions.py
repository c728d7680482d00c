"""A stage whose code changed keeps its old results only if somebody said so."""

from __future__ import annotations

import json

import grimp
import pytest

from tasks.policies import STAGE_VERSIONS
from tests.stage_versions import LOCK, current, examine_modules, stage_modules


@pytest.mark.parametrize("stage", [*STAGE_VERSIONS, "examine", "augment", "prefix"])
def test_changed_code_was_judged(stage: str) -> None:
    assert json.loads(LOCK.read_text()).get(stage) == current()[stage], (
        f"the code of `{stage}` changed: if it makes something else of the same inputs, bump STAGE_VERSIONS in"
        " tasks/policies.py (for `examine` EXAMINE_VERSION too; for `augment` and `prefix` AUGMENT_VERSION and PREFIX_VERSION"
        " in pipelines/training/embed.py); then run `python -m tests.stage_versions`"
    )


def test_the_digest_covers_what_a_stage_runs() -> None:
    graph = grimp.build_graph("tasks", "pipelines")
    assert "pipelines.data.decode" in stage_modules(graph, "prepare")
    assert {"pipelines.training.phases", "pipelines.models.lite0", "pipelines.augment.affine"} <= stage_modules(graph, "head")
    assert "pipelines.export.served" in stage_modules(graph, "export")
    assert "pipelines.export.served" not in stage_modules(graph, "head")
    assert {"pipelines.sources.examine", "pipelines.sources.containers", "pipelines.sources.pillow"} <= examine_modules(graph)
    assert "pipelines.sources.ingest" not in examine_modules(graph)
