"""A registry in a home, its database made once: each test gets a copy, in a place of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts import Registration
from pipelines.registry.connection import Registry, connected
from pipelines.registry.promote import check_model, read_history
from pipelines.registry.register import registry_lock
from pipelines.registry.service import register_run, settle_run
from pipelines.registry.versions import list_versions
from tests.registry.folders import candidate, write_run

# What of MLflow's client changes a registry.
CHANGES = (
    "create_experiment",
    "create_run",
    "log_batch",
    "log_inputs",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_registered_model_tag",
    "set_model_version_tag",
)


class CutOffError(Exception):
    """Stands for a process that dies: nothing of ours catches it."""


@dataclass
class Desk:
    """A registry, and what was said about it."""

    registry: Registry
    notes: list[str]

    def register(self, seed: int, *, gate: str = "margin .01", accuracy: float = 0.75) -> Registration:
        """Registers the run of a seed."""
        return register_run(
            self.registry,
            candidate(seed, gate=gate),
            lambda folder: write_run(folder, seed=seed, accuracy=accuracy),
            note=self.notes.append,
        )

    def settle(self, registration: Registration, *, promote: bool = True) -> bool:
        """Carries out what a gate decided."""
        decision = {"promote": promote, "reasons": ["better" if promote else "worse"], "margin": 0.01}
        return settle_run(self.registry, registration, decision, note=self.notes.append)

    def train(self, *seeds: int) -> None:
        """Registers and promotes the runs of some seeds."""
        for seed in seeds:
            assert self.settle(self.register(seed))

    @property
    def champion(self) -> int:
        """The version that the alias points at."""
        with connected(self.registry) as client:
            return int(check_model(client, "pets").aliases["champion"])

    @property
    def history(self) -> list[int | None]:
        """The champions, oldest first."""
        with connected(self.registry) as client:
            return [move.version for move in read_history(client, "pets")]

    @property
    def versions(self) -> list[int]:
        """The numbers of all versions, newest first."""
        with connected(self.registry) as client:
            return [version.number for version in list_versions(client, "pets")]

    def change(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Calls one of `pipelines.registry.promote` with a client, under the lock."""
        with registry_lock(self.registry), connected(self.registry) as client:
            return function(client, "pets", *arguments, **named)


@pytest.fixture(scope="session")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty registry."""
    home = tmp_path_factory.mktemp("registry") / "home"
    with connected(Registry(home)) as client:
        client.search_experiments()
    return home


@pytest.fixture(scope="session")
def trained_home(made_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has three versions, each of which was champion."""
    home = tmp_path_factory.mktemp("trained") / "home"
    shutil.copytree(made_home, home)
    Desk(Registry(home), []).train(1, 2, 3)
    return home


@pytest.fixture
def desk(made_home: Path, tmp_path: Path) -> Desk:
    """An empty registry."""
    return copy_of(made_home, tmp_path)


@pytest.fixture
def trained(trained_home: Path, tmp_path: Path) -> Desk:
    """A registry whose versions 1, 2 and 3 were champions, in that order."""
    return copy_of(trained_home, tmp_path)


def copy_of(home: Path, folder: Path) -> Desk:
    """A registry like that of a home, in a new place."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(home, folder / "home")
    return Desk(Registry(folder / "home"), [])


@contextmanager
def dying_before(change: int) -> Iterator[list[str]]:
    """Lets the block die before its n-th change of a registry, counted from 0; gives the names of those that were made."""
    from mlflow import MlflowClient

    made: list[str] = []
    inside: list[str] = []  # one of them calls another

    def dying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if inside:
                return function(*arguments, **named)
            if len(made) == change:
                raise CutOffError(name)
            inside.append(name)
            try:
                return function(*arguments, **named)
            finally:
                made.append(inside.pop())

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in CHANGES:
            patched.setattr(MlflowClient, name, dying(name, getattr(MlflowClient, name)))
        yield made
