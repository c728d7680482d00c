"""Where `retrain` finds the model in use, and puts a better one: the seam between the flow and a model registry.

`FolderRegistry` is the least that does: run folders, and one small file that says which of them is champion.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pipelines.store.artifacts import file_in_place, read_json, write_json


class ChampionRegistry(Protocol):
    """What `retrain` needs of a registry. Each call may be repeated after a crash, and must then change nothing more."""

    def champion(self, name: str) -> Path | None:
        """The run folder of the model in use, on this machine; None where there is none yet."""

    def register(self, name: str, folder: Path) -> str:
        """Makes a run folder a version of a model, as challenger; returns the version. The same folder is the same version."""

    def settle(self, name: str, version: str, decision: Mapping[str, Any]) -> bool:
        """Writes down what the gate decided of a version and, where it says `promote`, makes it champion, in one step, last.

        Returns:
            Whether it is champion now.
        """


class FolderRegistry:
    """A registry in the home; a version is the path of a run folder, which has to stay where it is.

    Args:
        home: of the artifacts.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "champions"

    def champion(self, name: str) -> Path | None:
        """As `ChampionRegistry.champion`."""
        path = self._path(name)
        return Path(read_json(path)["version"]) if path.exists() else None

    def register(self, name: str, folder: Path) -> str:  # noqa: ARG002 (there is nothing to write)
        """As `ChampionRegistry.register`."""
        return str(folder)

    def settle(self, name: str, version: str, decision: Mapping[str, Any]) -> bool:
        """As `ChampionRegistry.settle`; gate.json in the run folder has the decision already."""
        if decision["promote"]:
            with file_in_place(self._path(name)) as temporary:
                write_json(temporary, {"name": name, "version": version})
        return bool(decision["promote"])

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.json"


def open_registry(home: Path) -> ChampionRegistry:
    """The registry of a home."""
    return FolderRegistry(home)
