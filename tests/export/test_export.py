"""From an encoded store to a proved export, through every stage's own function."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import HeadConfig, Recipe, StoreConfig
from pipelines.data.prepare import prepare, read_examples
from pipelines.evaluation.evaluate import evaluate
from pipelines.export import export as export_module
from pipelines.export.export import export
from pipelines.slices import ingest_slice, training_slice
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.store.artifacts import artifact_path
from pipelines.training.phases import train_head
from tests.small import build_small
from tests.sources.folders import write_learnable

RECIPE = Recipe.model_validate({"image_size": 32, "batch_size": 8, "model": {"weights": "none"}, "sampling": "balanced"})


@pytest.mark.slow
def test_a_model_from_an_encoded_store_is_judged_and_proved_on_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.models.lite0.build_lite0", build_small)
    home, source = tmp_path / "home", write_learnable(tmp_path / "photos", 20)
    index = ingest(home, source, scan_source(home, source), config=ingest_slice(RECIPE, dataset="d"))
    prepared = prepare(home, source, index, image_size=32, resize="crop", store=StoreConfig(layout="encoded"))
    trained = train_head(home, prepared, config=training_slice(RECIPE), head=HeadConfig(epochs=1))
    evaluation = evaluate(home, prepared, trained, split="test", model=RECIPE.model)
    assert evaluation.examples == index.examples["test"]
    compared = []
    check_parity = export_module.check_parity
    monkeypatch.setattr(export_module, "check_parity", lambda *given: compared.append(given[0]) or check_parity(*given))
    exported = export(home, source, prepared, trained, split="validation", model=RECIPE.model)
    assert compared == ["model.keras", "the SavedModel"]
    assert exported.compared == index.examples["validation"] > 0
    assert exported.max_difference < 1e-5
    assert (artifact_path(home, exported.artifact) / "savedmodel" / "saved_model.pb").is_file()

    def interrupted(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        (arguments[0]).mkdir()

    monkeypatch.setattr(export_module, "write_saved_model", interrupted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        export(home, source, prepared, trained, split="test", model=RECIPE.model, report=lambda step: said.append(step.detail))
    assert said[-1] == "SavedModel written"
    assert not list((home / "tmp").iterdir())


def test_what_is_compared_comes_from_the_files_where_the_store_is_encoded(tmp_path: Path) -> None:
    home, source = tmp_path / "home", write_learnable(tmp_path / "photos", 20)
    index = ingest(home, source, scan_source(home, source), config=ingest_slice(RECIPE, dataset="d"))
    pixels = {}
    for layout in ("decoded", "encoded"):
        store = StoreConfig.model_validate({"layout": layout})
        prepared = prepare(home, source, index, image_size=32, resize="crop", store=store)
        _, pixels[layout] = export_module._images_to_compare(home, source, prepared, "validation")
        pixels[f"stored {layout}"] = read_examples(home, prepared, "validation")[1].gather(
            np.arange(index.examples["validation"])
        )
    np.testing.assert_array_equal(pixels["decoded"], pixels["encoded"])
    np.testing.assert_array_equal(pixels["decoded"], pixels["stored decoded"])
    assert (pixels["encoded"] != pixels["stored encoded"]).any()
