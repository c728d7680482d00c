"""Ingest: every file looked at once, bad ones quarantined, splits drawn."""

from __future__ import annotations

from prefect import task

from pipelines.contracts import ImageIndex, Listing
from pipelines.slices import IngestConfig
from tasks.policies import DescriptorSerializer, Place, StagePolicy
from tasks.progress import reporter


@task(
    name="ingest",
    task_run_name="ingest",
    cache_policy=StagePolicy(stage="ingest"),
    result_serializer=DescriptorSerializer(),
)
def ingest_task(place: Place, listing: Listing, config: IngestConfig) -> ImageIndex:
    """Builds the index of a scanned source."""
    from pipelines.sources.ingest import ingest

    return ingest(place.home, place.source, listing, config=config, report=reporter("ingest"))
