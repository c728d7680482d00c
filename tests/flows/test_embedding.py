"""What a whole run embeds, and what each of its phases then learns from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.progress import Progress
from pipelines.training import phases
from pipelines.training.trainer import Learner
from tasks.progress import Silent, listening
from tests.flows.conftest import Runs
from tests.sources.folders import write_photo

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]


class Embedding(Silent):
    """Hears what the embed stage says: its line, and how many images the network was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown = 0

    def progressed(self, stage: str, progress: Progress) -> None:
        if stage == "embed" and progress.milestone:
            self.lines.append(progress.detail)
        elif stage == "embed":
            self.shown = max(self.shown, progress.done)


def views_of(folder: Path) -> set[tuple[str, int]]:
    """Which views of which contents a run with two of them learned from."""
    index = pq.read_table(folder / "index.parquet").to_pylist()
    views = {"train": (0, 1), "validation": (0,)}
    return {(row["sha256"], view) for row in index for view in views.get(row["split"], ())}


def test_another_data_set_that_shares_images_embeds_only_what_was_never_seen(copied: Runs, warm: tuple[Runs, Path]) -> None:
    other = copied.home.parent / "others"
    shutil.copytree(copied.source, other)
    for label, seed in (("cat", 501), ("cat", 502), ("dog", 503)):
        write_photo(other / label / f"new{seed}.jpg", seed=seed)
    copied.text, heard = str(other), Embedding()
    with listening(heard):
        folder = copied.run()
    assert heard.shown == len(views_of(folder) - views_of(warm[1])) < len(views_of(folder)) / 2
    assert heard.shown > 0
    assert heard.lines[1:] == [f"{heard.shown} of {len(views_of(folder))} rows are new, the others are stored"]


@pytest.mark.parametrize(
    ("cache", "line", "learned_from"),
    [
        ({"mode": "features"}, "cache features: ", ["activations", "images"]),
        ({"mode": "auto"}, "cache activations: ", ["activations", "activations"]),
    ],
)
def test_each_phase_learns_from_what_is_stored_for_it(
    copied: Runs, monkeypatch: pytest.MonkeyPatch, cache: dict[str, Any], line: str, learned_from: list[str]
) -> None:
    seen, original, heard = [], phases.build_learner, Embedding()

    def build_learner(*arguments: Any) -> Learner:
        learner = original(*arguments)
        # From images the learner has the frozen part before it.
        seen.append("activations" if learner.prefix is None else "images")
        return learner

    monkeypatch.setattr(phases, "build_learner", build_learner)
    with listening(heard):
        folder = copied.run(cache=cache, head={"epochs": 2}, fine_tune={"epochs": 2, "layers": 5})
    assert seen == learned_from
    said, how_many = heard.lines
    assert said.startswith(line)
    assert re.fullmatch(r"\d+ of 48 rows are new, the others are stored", how_many)
    assert {row["phase"] for row in pq.read_table(folder / "history.parquet").to_pylist()} == {"head", "fine_tune"}
