"""The CIFAR-10 benchmark: how it lays images out, and what it counts as the time to a target."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from benchmarks.cifar10 import claims, lay_out, when_reached


@pytest.mark.parametrize(("per_class", "counts"), [(None, (18, 2, 6)), (10, (9, 1, 6)), (4, (3, 1, 4))])
def test_validation_is_the_last_tenth_of_each_training_class(
    tmp_path: Path, per_class: int | None, counts: tuple[int, int, int]
) -> None:
    for split, count in (("train", 20), ("test", 6)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:04d}.jpg").write_text(f"{split} {label} {number}")
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "images", arcname=".")
    root = lay_out(tmp_path / "images.tar.gz", tmp_path / "out", per_class=per_class)
    for label in ("cat", "dog"):
        found = tuple(len(list((root / split / label).iterdir())) for split in ("train", "validation", "test"))
        assert found == counts
    last = max((root / "validation" / "cat").iterdir())
    assert last.read_text() == f"train cat {counts[0] + counts[1] - 1}"
    assert {path.name for path in root.iterdir()} == {"train", "validation", "test"}


EPOCHS = [{"val_accuracy": accuracy, "seconds": 10.0} for accuracy in (0.5, 0.86, 0.84, 0.9)]
STAGES = {name: {"seconds": seconds} for name, seconds in (("prepare", 5.0), ("fine_tune", 44.0), ("export", 7.0))}


def test_the_time_to_a_target_ends_with_its_epoch_and_holds_all_that_came_before() -> None:
    # 60 s: 4 for the start, 5 prepare, 4 + 4 * 10 fine_tune, 7 export.
    assert when_reached(EPOCHS, STAGES, seconds=60.0, target=0.85) == {"epochs_to_target": 2, "seconds_to_target": 33.0}
    assert when_reached(EPOCHS, STAGES, seconds=60.0, target=0.95) == {}


def test_the_ratio_is_a_lower_bound_where_the_usual_recipe_never_gets_there() -> None:
    ours = {"test_accuracy": 0.87, "seconds_to_target": 100.0}
    usual = {"seconds_usual": 900.0}
    assert claims({**ours, **usual}, target=0.85) == {"cifar10_test_accuracy": 0.87, "seconds_to_85_ratio": 9.0}
    usual["seconds_to_target_usual"] = 350.0
    assert claims({**ours, **usual}, target=0.85)["seconds_to_85_ratio"] == 3.5
    assert claims({"test_accuracy": 0.8, **usual}, target=0.85) == {"cifar10_test_accuracy": 0.8}
    assert claims(usual, target=0.85) == {}
