"""Embed: what the frozen part of the network makes of each view of each image, stored."""

from __future__ import annotations

from pipelines.contracts import Embedded, PreparedImages
from pipelines.slices import EmbedConfig
from tasks.policies import Place, stage_task
from tasks.worker import run_stage


@stage_task("embed")
def embed_task(place: Place, prepared: PreparedImages, config: EmbedConfig) -> Embedded:
    """Makes sure that the activation store holds what both phases need."""
    embedded: Embedded = run_stage("embed", home=place.home, prepared=prepared, config=config)
    return embedded
