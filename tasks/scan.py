"""Scan: what files are there, with the digest of each. Never cached: its digest is what tells whether anything changed."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.contracts import Listing
from pipelines.sources.scan import scan_source
from pipelines.sources.source import Source
from tasks.policies import Place
from tasks.progress import reporter


@task(name="scan", task_run_name="scan", cache_policy=NO_CACHE, persist_result=False)
def scan(place: Place, source: Source, *, verify: bool = False) -> Listing:
    """Lists the source, fetching its images where they are not files yet, and takes the digest of every new file.

    Of all files with `verify`.
    """
    report = reporter("scan")
    listed = source.find(report=report)
    return scan_source(place.home, place.source, listed=listed, name=source.name, verify=verify, report=report)
