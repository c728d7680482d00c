"""`imagemill describe` as a user meets it: a table, its sums, and the same numbers as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.command import run_command
from tests.flows.conftest import Runs


def test_a_recipe_is_described_layer_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "new" / "model.json"
    recipe.write_text("model: {backbone: SmallCNN, blocks: {widths: [8, 12], depths: [1, 2]}}\n")
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ("describe", recipe, "--set", "image_size=40", "--classes", "3", "--json", out)
    assert run_command(*arguments) == 0
    shown, content = capfd.readouterr().out, json.loads(out.read_text())
    layers = {layer["name"]: layer for layer in content["layers"]}
    assert layers["SmallCNN/block2b_conv"] == {
        "name": "SmallCNN/block2b_conv",
        "kind": "Conv2D",
        "output_shape": [20, 20, 12],
        "parameters": 3 * 3 * 12 * 12,
        "multiply_adds": 20 * 20 * 3 * 3 * 12 * 12,
        "receptive_field_px": 1 + 2 + 1 + 2 * (2 + 2),
        "stride_px": 2,
    }
    assert layers["logits"]["parameters"] == 256 * 3 + 3
    assert layers["logits"]["receptive_field_px"] is None
    assert content["model"] == "SmallCNN, 40 px, 3 classes"
    assert content["parameters"] == sum(layer["parameters"] for layer in content["layers"])
    assert f"{content['parameters']:,} parameters, {content['multiply_adds']:,} multiply-adds per image" in shown
    assert re.search(r"│ block2b_conv +│ Conv2D +│ 20x20x12 +│ +1,296 │ +518,400 │ +12 │ +2 │", shown)


@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_figure_is_left_out_where_a_line_has_no_room(
    columns: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run_command("describe", "SmallSeparableCNN", "--set", "image_size=512", "--classes", "1000") == 0
    shown = capfd.readouterr().out
    assert "…" not in shown
    assert re.search(r"┃ layer +┃ kind +┃ +output ┃ +parameters ┃ +multiply-adds ┃ +sees, px ┃ stride ┃", shown)
    assert re.search(r"│ block1a_conv +│ Conv2D +│ +512x512x32 │ +864 │ +226,492,416 │ +3 │ +1 │", shown)


def test_a_backbone_is_described_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("describe", "SmallSeparableCNN") == 0
    shown = capfd.readouterr().out
    assert "SmallSeparableCNN, 32 px, 10 classes" in shown
    assert "55,594 parameters" in shown


@pytest.mark.slow
def test_the_model_of_a_run_is_described(warm: tuple[Runs, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command("describe", warm[1], "--json", tmp_path / "model.json") == 0
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["layers"][-1] | {"name": ""} == {
        "name": "",
        "kind": "Softmax",
        "output_shape": [2],
        "parameters": 0,
        "multiply_adds": 0,
        "receptive_field_px": None,
        "stride_px": None,
    }
    assert content["layers"][0]["output_shape"] == [32, 32, 3]
