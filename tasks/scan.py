"""Scan: what files are there, with the digest of each. Never cached: its digest is what tells whether anything changed."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.contracts import Listing
from pipelines.sources.scan import scan_source
from tasks.policies import Place
from tasks.progress import reporter


@task(name="scan", task_run_name="scan", cache_policy=NO_CACHE, persist_result=False)
def scan(place: Place, *, verify: bool = False) -> Listing:
    """Lists the source and takes the digest of every file that changed since the last scan; of all with `verify`."""
    return scan_source(place.home, place.source, verify=verify, report=reporter("scan"))
