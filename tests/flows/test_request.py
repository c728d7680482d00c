"""What is refused before any work is done, and where results go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flows.request import check_home, check_request, complete_recipe, default_home, make_default_run_folder
from pipelines.config import ModelConfig, Recipe
from pipelines.errors import InputError, RunError
from pipelines.run_folder import EVALUATION_FILES, RUN_FILES, check_target, check_writable
from pipelines.sources.source import FolderSource
from tasks.layer_names import layer_names


def test_default_folders_are_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = make_default_run_folder("my photos/1"), make_default_run_folder("my photos/1")
    assert first != second
    assert first.is_dir()
    assert re.fullmatch(r"runs/\d{8}-\d{6}-my-photos-1(-2)?", first.as_posix())


def test_the_home_is_named_by_the_environment_or_lies_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_HOME", "/some/home")
    assert default_home() == Path("/some/home")
    monkeypatch.delenv("IMAGEMILL_HOME")
    assert default_home() == Path(".imagemill")


@pytest.mark.parametrize(
    ("present", "files", "allowed"),
    [
        ([], RUN_FILES, True),
        (["timings.json", "metrics.json", "export"], RUN_FILES, True),
        (["metrics.json"], RUN_FILES, False),
        (["timings.json", "thesis.txt"], RUN_FILES, False),
        (["metrics.json", "predictions.parquet"], EVALUATION_FILES, True),
        (["metrics.json", "photos"], EVALUATION_FILES, False),
        (["metrics.json", "timings.json"], EVALUATION_FILES, False),
    ],
)
def test_only_earlier_results_and_nothing_else_are_replaced(
    tmp_path: Path, present: list[str], files: tuple[str, ...], allowed: bool
) -> None:
    for name in present:
        (tmp_path / name).write_text("x")
    if allowed:
        check_target(tmp_path, files=files)
        return
    with pytest.raises(InputError, match=r"`--out` must be a new or empty folder, or earlier results to replace; .* holds '"):
        check_target(tmp_path, files=files)


def test_a_place_below_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for check in (check_target, check_home, lambda path: check_writable("--out", path)):
        with pytest.raises(InputError, match=r"must lie in a folder; .*file' is a file"):
            check(tmp_path / "file" / "a" / "b")


def test_a_weights_file_of_an_unknown_kind_is_refused_at_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"x")
    recipe = Recipe(model=ModelConfig(weights=str(tmp_path / "weights.pth")))
    with pytest.raises(InputError, match=r"`model.weights` must end in one of .*\.weights\.h5"):
        check_request(FolderSource(photos), recipe, home=tmp_path / "home", out=tmp_path / "out")


@pytest.mark.slow
def test_an_unknown_block_is_refused_at_once(photos: Path, tmp_path: Path) -> None:
    def check(layers: str, **settings: Any) -> None:
        recipe = Recipe.model_validate({"batch_size": 8, "fine_tune": {"layers": layers, **settings}})
        check_request(FolderSource(photos), recipe, home=tmp_path / "home", out=tmp_path / "out")

    with pytest.raises(InputError, match=r"`fine_tune.layers` must be .* of EfficientNetLite0; received 'block8a': .*block7a"):
        check("block8a")
    for layers in ("block7a", "block7a_project_conv", "all"):
        check(layers)
    check("block8a", epochs=0)  # nobody looks for it
    assert not (tmp_path / "home").exists()


def test_a_backbone_that_can_not_be_built_is_no_fault_of_the_recipe() -> None:
    with pytest.raises(RunError, match=r"the layers of VGG could not be found out: exit status 1 \(KeyError: 'VGG'\)"):
        layer_names("VGG")


def test_a_finished_recipe_repeats_the_run_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = complete_recipe(Recipe(model=ModelConfig(weights="w.weights.h5")), dataset="photos")
    assert (recipe.name, recipe.model.weights) == ("photos", str(tmp_path / "w.weights.h5"))
    assert complete_recipe(Recipe(), dataset="d").model == ModelConfig()
