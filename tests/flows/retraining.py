"""A home and a source that are retrained, for the tests of the retrain flow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.promotion import find_champion
from pipelines.config import Recipe
from pipelines.errors import RegistryUnreachableError
from pipelines.registry import connection
from pipelines.registry.connection import Registry
from pipelines.sources.content import digest_source
from pipelines.sources.source import FolderSource
from pipelines.store.artifacts import file_digest
from tests.flows.conftest import LEARNS, TINY, Runs

REGISTERED = {**TINY, **LEARNS, "registry": {"enabled": True}}


class Place:
    """A copy of a home that knows all stages of the champion's training, and of its source."""

    def __init__(self, runs: Runs, folder: Path) -> None:
        self.home, self.source = folder / "home", folder / "photos"
        shutil.copytree(runs.home, self.home)
        shutil.copytree(runs.source, self.source)

    def retrain(self, *, digest: str | None = None, again: bool = False, **changes: Any) -> dict[str, Any]:
        from flows.retrain import retrain

        recipe = Recipe.model_validate({**REGISTERED, **changes})
        outcome: dict[str, Any] = retrain(str(self.source), recipe, str(self.home), digest, again)
        return outcome

    @property
    def champion(self) -> Path | None:
        return find_champion(Recipe.model_validate(REGISTERED), home=self.home, dataset="photos")

    @property
    def content(self) -> str:
        return digest_source(self.home, FolderSource(self.source))


def misses(outcome: Mapping[str, Any]) -> list[str]:
    """The stages that a retraining had to do, but for the scan."""
    stages = json.loads((Path(outcome["challenger"]) / "timings.json").read_text())["stages"]
    return [name for name, stage in stages.items() if stage["cache"] == "miss" and name != "scan"]


@contextmanager
def registry_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nobody answered at the registry's address, in the block."""

    def unreachable(registry: Registry) -> None:
        raise RegistryUnreachableError(f"the registry at {registry.address} does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "check_answers", unreachable)
        yield


def sha256_of(folder: Path | None) -> str:
    assert folder is not None
    return file_digest(folder / "model.keras")
