"""Versions that nobody will go back to leave the home's own registry, and their models the disk; what was logged of runs stays.

Only the registry in the home: what lies on a server may be needed by others, and is theirs to remove.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipelines.registry.connection import Registry, connected
from pipelines.registry.moves import champions, read_moves
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.records import forget_record
from pipelines.registry.register import CHAMPION, registry_lock
from pipelines.registry.run_log import MODEL_FOLDER
from pipelines.registry.versions import CONTENT_TAG, find_versions, list_models
from pipelines.store.sweep import Leftover, folder_bytes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CLEANED_TAG = "imagemill.cleaned"  # of a run
_REMOVING, _REMOVED = "removing", "removed"
_KIND = "refused and former models"


def clean_registry(registry: Registry, *, before: float, keep_champions: int, dry_run: bool) -> list[Leftover]:
    """Removes versions that were made before a time, have no alias, wait for nothing, and are not among the last champions.

    Killed in the middle, a version is whole or gone, and the next call removes what is left of its files.

    Args:
        registry: of the home.
        before: seconds since the epoch.
        keep_champions: how many former champions a rollback can go back to, one after the other, whatever their age.
        dry_run: only find them.

    Returns:
        What was removed, or would be.
    """
    if not registry.exists:
        return []
    found: list[Leftover] = []
    with registry_lock(registry), connected(registry) as client:
        for model in list_models(client):
            if not dry_run:
                _finish_removals(client, model.name)
            for version in _unneeded(registry, client, model.name, before=before, keep_champions=keep_champions):
                folder = _local(version.source)
                found.append(Leftover(_KIND, folder, folder_bytes(folder)))
                if not dry_run:
                    _remove(registry, client, version)
    return found


def _unneeded(
    registry: Registry, client: MlflowClient, name: str, *, before: float, keep_champions: int
) -> Iterator[ModelVersion]:
    model = client.get_registered_model(name)
    champion = model.aliases.get(CHAMPION)
    champion = None if champion is None else int(champion)
    versions = find_versions(client, name)
    present = {int(version.version) for version in versions}
    former = [number for number in champions(read_moves(model.tags, champion)) if number in present and number != champion]
    last = list(dict.fromkeys(reversed(former)))[:keep_champions]
    waiting = (entry.registration for _, entry in waiting_entries(registry) if entry.candidate.name == name)
    kept = {*last, *map(int, model.aliases.values()), *(registration.version for registration in waiting if registration)}
    for version in versions:
        ours = version.run_id and CONTENT_TAG in version.tags
        if ours and int(version.version) not in kept and version.creation_timestamp / 1000 < before:
            yield version


def _remove(registry: Registry, client: MlflowClient, version: ModelVersion) -> None:
    """The order matters: a version that is there can be loaded, and a run of this content is registered anew."""
    run = client.get_run(str(version.run_id))
    client.set_tag(run.info.run_id, CLEANED_TAG, _REMOVING)
    forget_record(registry, version.name, version.tags[CONTENT_TAG])
    client.delete_model_version(version.name, version.version)
    _remove_files(client, run)


def _finish_removals(client: MlflowClient, name: str) -> None:
    """Removes the files of versions that are gone, where a process was killed in between."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return
    in_use = {version.run_id for version in find_versions(client, name)}
    for run in client.search_runs([experiment.experiment_id], f"tags.`{CLEANED_TAG}` = '{_REMOVING}'"):
        if run.info.run_id not in in_use:
            _remove_files(client, run)


def _remove_files(client: MlflowClient, run: Run) -> None:
    if CONTENT_TAG in run.data.tags:  # first: a registration takes a finished run of its content as it is
        client.delete_tag(run.info.run_id, CONTENT_TAG)
    shutil.rmtree(_local(run.info.artifact_uri) / MODEL_FOLDER, ignore_errors=True)
    client.set_tag(run.info.run_id, CLEANED_TAG, _REMOVED)


def _local(uri: str | None) -> Path:
    return Path(url2pathname(urlsplit(str(uri)).path))
