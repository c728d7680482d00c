"""A real run, made once for all tests of the flows, and copies of it to be changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Recipe
from tests.small import small_lite0
from tests.sources.folders import write_classes, write_tinted

STAGES = ["ingest", "prepare", "embed", "head", "fine_tune", "evaluate", "export"]
TINY: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 8,
    "model": {"weights": "none"},
    "cache": {"mode": "activations"},
    "head": {"epochs": 1},
    "fine_tune": {"epochs": 1, "layers": 5},
    "registry": {"enabled": False},
}
# A network of 1,000 weights that learns to tell colours apart in a second.
LEARNS: dict[str, Any] = {
    "model": {"backbone": "SmallCNN", "blocks": {"widths": [8], "depths": [1]}, "hidden_units": 0, "dropout": 0},
    "augment": {"where": "none"},
    "cache": {"mode": "off"},
    "head": {"epochs": 0},
    "fine_tune": {"epochs": 6, "learning_rate": 0.02, "layers": "all"},
    "split": {"train": 0.4, "validation": 0.1, "test": 0.5},
    "gate": {"least_images": 20, "margin": 0.1, "class_support": 10},
}


class Runs:
    """One home and one source, and the run that made them warm."""

    def __init__(self, folder: Path) -> None:
        self.home, self.source = folder / "home", folder / "photos"
        self.text: str | None = None  # SOURCE, where it is no path
        self._out = folder / "runs"
        self._count = 0

    def run(self, *, verify: bool = False, start: Path | None = None, **changes: Any) -> Path:
        """Trains a small network with the tiny recipe and some changes; returns the run folder."""
        self._count += 1
        from flows.train import train_model  # Prefect reads its settings when it is imported

        recipe = Recipe.model_validate({**TINY, **changes})
        source, out = self.text or str(self.source), str(self._out / str(self._count))
        with small_lite0():
            begin = str(start) if start else None
            return Path(train_model(source, recipe, home=str(self.home), out=out, verify=verify, start=begin))

    def missed(self, *, verify: bool = False, **changes: Any) -> list[str]:
        """The stages that a run had to do."""
        stages = json.loads((self.run(verify=verify, **changes) / "timings.json").read_text())["stages"]
        assert list(stages) == sorted(["scan", *STAGES])
        return [name for name in STAGES if stages[name]["cache"] == "miss"]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Runs, Path]:
    runs = Runs(tmp_path_factory.mktemp("warm"))
    write_classes(runs.source, {"cat": 14, "dog": 14})
    return runs, runs.run()


@pytest.fixture
def copied(warm: tuple[Runs, Path], tmp_path: Path) -> Runs:
    """A copy of the warm home and source, to be changed."""
    runs = Runs(tmp_path)
    shutil.copytree(warm[0].home, runs.home)
    shutil.copytree(warm[0].source, runs.source)
    return runs


@pytest.fixture
def champion(warm: tuple[Runs, Path], tmp_path: Path) -> Iterator[Any]:
    """A `Champion`: the warm run with its images prepared again."""
    from tests.flows.champions import Champion

    with small_lite0():
        yield Champion.copied(*warm, tmp_path)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Runs, Path]:
    """A champion that tells red, green and blue apart, with the home and the source of its run."""
    runs = Runs(tmp_path_factory.mktemp("colours"))
    write_tinted(runs.source, {"red": 24, "green": 24, "blue": 24})
    return runs, runs.run(**LEARNS)
