"""Weights at rest: they fit a second build in the same process, whatever names Keras gives to its layers by then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.config import ModelConfig
from pipelines.contracts import TrainedModel
from pipelines.models.assemble import build_classifier
from pipelines.training.loop import BestWeights
from pipelines.training.state import load_weights, save_trained

CONFIG = {"image_size": 71, "num_classes": 2}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["Xception", "EfficientNetB0", "DenseNet121"])
def test_a_second_build_takes_the_weights_of_the_first(tmp_path: Path, backbone: str) -> None:
    config = ModelConfig.model_validate({"backbone": backbone, "weights": "none"})
    first = build_classifier(config, seed=1, **CONFIG)
    saved: TrainedModel = save_trained(tmp_path, "head", first, best=BestWeights(phase="head", epoch=1), epochs=[])
    second = build_classifier(config, seed=2, **CONFIG)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 71, 71, 3)).astype(np.float32)
    assert not np.allclose(first(pixels), second(pixels))
    load_weights(tmp_path, saved, second)
    np.testing.assert_array_equal(first(pixels), second(pixels))
