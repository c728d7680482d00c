"""Ingest: every file looked at once, bad ones quarantined, splits drawn."""

from __future__ import annotations

from pipelines.contracts import ImageIndex, Listing
from pipelines.slices import IngestConfig
from tasks.policies import Place, stage_task
from tasks.progress import reporter
from tasks.worker import current_worker


@stage_task("ingest")
def ingest_task(place: Place, listing: Listing, config: IngestConfig) -> ImageIndex:
    """Builds the index of a scanned source."""
    from pipelines.sources.ingest import ingest

    current_worker().expect()  # new images: all that follows has to be done too
    return ingest(place.home, place.source, listing, config=config, report=reporter("ingest"))
