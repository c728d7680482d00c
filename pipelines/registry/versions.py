"""What a registry holds, as numbers and words for a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Tags of a version.
CONTENT_TAG, DIGEST_TAG, DATA_TAG = "imagemill.content", "imagemill.digest", "imagemill.data"
FIGURES_TAG, GATE_TAG = "imagemill.accuracy", "imagemill.gate"


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        number: from 1.
        aliases: that point at it.
        accuracy: with the split that it is on; empty where imagemill did not make the version.
        data: digest of the index; empty as above.
        created: when, UTC.
        verdict: of the gate: `promote` or `keep`; empty where none was asked.
        reason: of the verdict, in words.
    """

    number: int
    aliases: tuple[str, ...]
    accuracy: str
    data: str
    created: datetime
    verdict: str
    reason: str


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes:
        name: of it.
        aliases: the version of each.
    """

    name: str
    aliases: dict[str, int]


def list_models(client: MlflowClient) -> list[Model]:
    """All registered models, by name."""
    models, token = [], None
    while True:
        page = client.search_registered_models(page_token=token)
        models += [Model(found.name, {alias: int(number) for alias, number in found.aliases.items()}) for found in page]
        token = page.token
        if not token:
            return sorted(models, key=lambda model: model.name)


def list_versions(client: MlflowClient, name: str) -> list[Version]:
    """The versions of a registered model, newest first; none where there is no such model."""
    found = find_versions(client, name)
    if not found:
        return []
    names: dict[int, list[str]] = {}
    for alias, number in client.get_registered_model(name).aliases.items():
        names.setdefault(int(number), []).append(alias)
    versions = [_describe(version, sorted(names.get(int(version.version), []))) for version in found]
    return sorted(versions, key=lambda version: -version.number)


def find_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """MLflow's versions of a registered model, in no order."""
    quote = next((quote for quote in ("'", '"') if quote not in name), None)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = {quote}{name}{quote}" if quote else None, page_token=token)
        found += [version for version in page if version.name == name]
        token = page.token
        if not token:
            return found


def read_verdict(tags: Mapping[str, str]) -> dict[str, Any]:
    """What the gate said about a version, by the version's tags: `promote`, `reason` and `settings`; empty where nothing."""
    try:
        verdict = json.loads(tags.get(GATE_TAG, "{}"))
    except json.JSONDecodeError:
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _describe(version: ModelVersion, aliases: list[str]) -> Version:
    tags = dict(version.tags)
    verdict = read_verdict(tags)
    return Version(
        number=int(version.version),
        aliases=tuple(aliases),
        accuracy=tags.get(FIGURES_TAG, ""),
        data=tags.get(DATA_TAG, ""),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        verdict={True: "promote", False: "keep", None: ""}[verdict.get("promote")],
        reason=str(verdict.get("reason", "")),
    )
