"""A champion with its images prepared again, for the tests of warm starts and of replay."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Recipe, StoreConfig
from pipelines.contracts import PreparedImages, StoredActivations, TrainedModel
from pipelines.data.prepare import prepare
from pipelines.slices import TrainingConfig, ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.index import read_index, write_index
from pipelines.warm_start import start_warm
from tests.flows.conftest import TINY, Runs
from tests.sources.folders import write_photo

RECIPE = Recipe.model_validate(TINY)


@dataclass(frozen=True)
class Champion:
    """A run folder with the images that it was trained on, prepared again."""

    home: Path
    folder: Path
    prepared: PreparedImages
    config: TrainingConfig

    def start(
        self, activations: StoredActivations | None = None, *, replay: int | None = None, **changes: Any
    ) -> TrainedModel | str:
        settings = {"config": dataclasses.replace(self.config, **changes), "fine_tune": RECIPE.fine_tune, "replay": replay}
        return start_warm(self.home, self.prepared, self.folder, activations, **settings)

    @classmethod
    def copied(cls, runs: Runs, folder: Path, out: Path) -> Champion:
        """A copy, in `out`, of a home and a run folder of it, to be changed."""
        home = Path(shutil.copytree(runs.home, out / "home"))
        index = ingest(home, runs.source, scan_source(home, runs.source), config=ingest_slice(RECIPE, dataset="photos"))
        prepared = prepare(home, runs.source, index, image_size=32, resize="crop", store=StoreConfig())
        return cls(home, Path(shutil.copytree(folder, out / "champion")), prepared, training_slice(RECIPE))

    def forget(self, count: int) -> list[str]:
        """Has its index say that it never saw the first training images; returns their digests."""
        rows = read_index(self.folder / "index.parquet")
        forgotten = [row["sha256"] for row in rows if row["split"] == "train"][:count]
        write_index(self.folder / "index.parquet", [row for row in rows if row["sha256"] not in forgotten])
        return forgotten


def add_dogs(runs: Runs, count: int) -> None:
    for number in range(count):
        write_photo(runs.source / "dog" / f"new {number}.jpg", seed=9_000 + number)
