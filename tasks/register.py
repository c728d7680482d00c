"""Register: the run is logged in MLflow and its model becomes a version, the challenger.

Never a cache hit of Prefect's, since the registry may have changed; what the home remembers makes a repeated run cheap.
"""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.contracts import Registration
from pipelines.registry.candidate import describe_candidate
from pipelines.registry.code import code_versions
from pipelines.registry.connection import Registry
from pipelines.registry.service import register_run
from pipelines.run_folder import RunResults, write_run_folder
from tasks.policies import STAGE_VERSIONS
from tasks.progress import current_listener


@task(name="register", task_run_name="register", cache_policy=NO_CACHE, persist_result=False)
def register_task(registry: Registry, results: RunResults, dataset: str) -> Registration:
    """Registers what a run made; where the registry does not answer, keeps it until it does."""
    code = code_versions(STAGE_VERSIONS)
    candidate = describe_candidate(results.recipe, results.index, results.exported, dataset=dataset, code=code)
    return register_run(
        registry,
        candidate,
        lambda folder: write_run_folder(registry.home, folder, results),
        note=current_listener().noted,
    )
