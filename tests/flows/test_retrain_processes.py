"""`imagemill retrain` in processes of its own: two at once, and a challenger that learned wrong labels."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.registry.connection import Registry, connected
from pipelines.registry.promote import check_model, read_history
from pipelines.registry.versions import list_versions
from tests.flows.commands import finish, run_folder, start_command, write_recipe
from tests.sources.folders import write_tinted

pytestmark = pytest.mark.slow
CLASSES = ("red", "green")


class Trained(NamedTuple):
    """A folder with a home, a source with split folders and a recipe, and what the two commands said that made it."""

    folder: Path
    said: list[str]


def arguments_in(folder: Path) -> list[object]:
    """A retraining of what lies in a folder."""
    return ["retrain", folder / "photos", "--config", folder / "recipe.yaml", "--home", folder / "home"]


def read_registry(folder: Path) -> tuple[list[int], int, list[int | None]]:
    """The versions, the champion, and the champions until now."""
    with connected(Registry(folder / "home")) as client:
        versions = [version.number for version in list_versions(client, "photos")]
        champion = int(check_model(client, "photos").aliases["champion"])
        return versions, champion, [move.version for move in read_history(client, "photos")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two identical commands, started together on a new home."""
    folder = tmp_path_factory.mktemp("together")
    drawn = write_tinted(folder / "drawn", dict.fromkeys(CLASSES, 56))
    for label in CLASSES:
        images = iter(sorted((drawn / label).iterdir()))
        for split, count in {"train": 20, "validation": 6, "test": 30}.items():
            target = folder / "photos" / split / label
            target.mkdir(parents=True)
            for path in islice(images, count):
                path.rename(target / path.name)
    write_recipe(folder / "recipe.yaml", retrain={"warm_start": False})
    commands = [start_command(*arguments_in(folder)) for _ in range(2)]
    return Trained(folder, [finish(command) for command in commands])


def test_two_identical_ones_at_once_do_the_work_once(trained: Trained) -> None:
    repeated = "these images were trained on before with this recipe: version 1 was promoted"
    done, known = sorted(trained.said, key=lambda said: repeated in said)
    assert repeated not in done
    assert repeated in known
    assert "fine_tune: " in done
    assert "fine_tune: " not in known
    stages = json.loads((run_folder(done) / "timings.json").read_text())["stages"]
    assert {stage["cache"] for stage in stages.values()} == {"miss"}
    assert read_registry(trained.folder) == ([1], 1, [1])


def test_a_challenger_trained_on_wrong_labels_is_refused(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    for split in ("train", "validation"):
        red, green = (tmp_path / "photos" / split / label for label in CLASSES)
        red.rename(red.with_name("swapped"))
        green.rename(red)
        red.with_name("swapped").rename(green)
    said = finish(start_command(*arguments_in(tmp_path)))
    decision = json.loads((run_folder(said) / "gate.json").read_text())
    assert decision["promote"] is False
    assert {check["name"] for check in decision["checks"] if not check["passed"]} == {"accuracy", "classes"}
    assert "the challenger is worse by more than 0.1" in decision["reasons"][0]
    assert decision["comparison"]["champion_accuracy"] > 0.9
    assert decision["comparison"]["challenger_accuracy"] < 0.1
    assert decision["comparison"]["images"] == 60
    assert "version 2 of 'photos' is not promoted: " in said
    assert read_registry(tmp_path) == ([2, 1], 1, [1])
