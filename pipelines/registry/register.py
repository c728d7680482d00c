"""A finished run becomes a version of its registered model, once: interrupted or repeated, the same content is one version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipelines.contracts import Candidate, Registration
from pipelines.registry.candidate import folder_digest
from pipelines.registry.connection import Registry
from pipelines.registry.moves import read_moves
from pipelines.registry.records import Record, read_record, write_record
from pipelines.registry.run_log import MODEL_FOLDER, log_run
from pipelines.registry.versions import CONTENT_TAG, DATA_TAG, DIGEST_TAG, FIGURES_TAG, read_verdict
from pipelines.store.artifacts import read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"


def registry_lock(registry: Registry) -> FileLock:
    """Held by whoever changes a registry from this home. Other homes are kept apart by MLflow's own transactions alone."""
    registry.folder.mkdir(parents=True, exist_ok=True)
    return FileLock(registry.folder / "lock")


def known_registration(registry: Registry, candidate: Candidate) -> Registration | None:
    """The registration of a candidate that was registered and judged before, by the home's records: MLflow is not asked."""
    record = read_record(registry, candidate)
    if record is None or record.settled != candidate.gate:
        return None
    return Registration(candidate=candidate, version=record.version, champion=None, settled=True)


def register(registry: Registry, client: MlflowClient, candidate: Candidate, folder: Path) -> Registration:
    """Makes sure that a run is logged and that its model is a version with the alias `challenger`.

    The version comes after all that it needs, with its tags in one transaction, and is found again by the tag of its content;
    whatever was cut off before that is found, or made again. The lock of the registry must be held.

    Args:
        registry: where.
        client: connected to it.
        candidate: what the run folder is known by.
        folder: a run folder.
    """
    version = find_version(client, candidate)
    if version is None:
        version = _create_version(registry, client, candidate, folder)
    model = client.get_registered_model(candidate.name)
    champion = model.aliases.get(CHAMPION)
    champion = None if champion is None else int(champion)
    if champion != version:
        client.set_registered_model_alias(candidate.name, CHALLENGER, str(version))
    ever = {move.version for move in read_moves(model.tags, champion)}
    verdict = read_verdict(client.get_model_version(candidate.name, str(version)).tags)
    # A verdict that was cut off before it was carried out settles nothing; a champion needs none.
    done = verdict.get("settings") if version in ever or not verdict.get("promote") else None
    judged = candidate.gate if champion == version else done
    write_record(registry, candidate, Record(version=version, settled=judged))
    return Registration(candidate=candidate, version=version, champion=champion, settled=judged == candidate.gate)


def find_version(client: MlflowClient, candidate: Candidate) -> int | None:
    """The version of a content, or None."""
    versions = client.search_model_versions(f"tags.`{CONTENT_TAG}` = '{candidate.content}'")
    return min((int(version.version) for version in versions if version.name == candidate.name), default=None)


def _create_version(registry: Registry, client: MlflowClient, candidate: Candidate, folder: Path) -> int:
    run = log_run(client, candidate, folder, artifact_root=registry.artifact_root)
    _ensure_model(client, candidate.name)
    metrics = read_json(folder / "metrics.json")
    tags = {
        CONTENT_TAG: candidate.content,
        DIGEST_TAG: folder_digest(folder),
        DATA_TAG: candidate.data,
        FIGURES_TAG: f"{metrics['accuracy']:.4f} on {metrics['split']}",
    }
    source = f"{run.info.artifact_uri}/{MODEL_FOLDER}"
    created = client.create_model_version(candidate.name, source, run.info.run_id, tags, await_creation_for=60)
    return int(created.version)


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
