"""Embed: what the frozen part of the network makes of each view of each image, stored."""

from __future__ import annotations

from prefect import task

from pipelines.contracts import Embedded, PreparedImages
from pipelines.slices import EmbedConfig
from tasks.policies import DescriptorSerializer, Place, StagePolicy
from tasks.progress import reporter


@task(name="embed", task_run_name="embed", cache_policy=StagePolicy(stage="embed"), result_serializer=DescriptorSerializer())
def embed_task(place: Place, prepared: PreparedImages, config: EmbedConfig) -> Embedded:
    """Makes sure that the activation store holds what both phases need."""
    from pipelines.training.embed import embed

    return embed(place.home, prepared, config=config, report=reporter("embed"))
