"""A kept classifier is the one that would be built: what one stage did to it is gone for the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipelines.config import BlocksConfig, ModelConfig
from pipelines.models.assemble import backbone_of, set_trainable_top
from pipelines.models.kept import keeping_classifier, take_classifier
from tests.small import small_lite0

SMALL = ModelConfig(backbone="SmallCNN", weights="none", blocks=BlocksConfig(widths=[4], depths=[1]), dropout=0.5)
SHAPE: dict[str, Any] = {"image_size": 32, "num_classes": 3, "seed": 1}


def change(model: keras.Model) -> None:
    """What training does: other weights, other trainable layers, dropout's random state moved on."""
    set_trainable_top(model, layers="all")
    model(np.ones((2, *model.input_shape[1:]), np.float32), training=True)
    model.set_weights([weight + 1 for weight in model.get_weights()])


def state(model: keras.Model) -> list[Any]:
    return [*map(np.asarray, model.variables), [layer.trainable for layer in model.layers], model.get_config()["name"]]


def equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_it_is_given_again_as_it_was_built() -> None:
    fresh = state(take_classifier(SMALL, **SHAPE))
    with keeping_classifier():
        first = take_classifier(SMALL, **SHAPE)
        change(first)
        assert not equal(state(first), fresh)
        again = take_classifier(SMALL, **SHAPE)
        assert again is first
        assert equal(state(again), fresh)
    assert take_classifier(SMALL, **SHAPE) is not first


@pytest.mark.parametrize("changes", [{"image_size": 40}, {"num_classes": 4}, {"seed": 2}])
def test_another_shape_or_seed_is_another_model(changes: dict[str, Any]) -> None:
    with keeping_classifier():
        first = take_classifier(SMALL, **SHAPE)
        other = take_classifier(SMALL, **SHAPE | changes)
        assert other is not first
        assert equal(state(other), state(take_classifier(SMALL, **SHAPE | changes)))


def test_another_architecture_or_type_of_number_is_another_model() -> None:
    with keeping_classifier():
        first = take_classifier(SMALL, **SHAPE)
        other = take_classifier(SMALL.model_copy(update={"hidden_units": 3}), **SHAPE)
        assert other is not first
        keras.config.set_dtype_policy("mixed_float16")
        try:
            assert take_classifier(SMALL.model_copy(update={"hidden_units": 3}), **SHAPE) is not other
        finally:
            keras.config.set_dtype_policy("float32")


def test_other_weights_are_as_good_only_where_they_are_replaced() -> None:
    lite0 = ModelConfig(backbone="EfficientNetLite0", weights="imagenet")
    random = lite0.model_copy(update={"weights": "none"})
    with small_lite0(), keeping_classifier():
        first = take_classifier(lite0, **SHAPE)
        assert take_classifier(lite0, **SHAPE, weights_follow=True) is first
        assert take_classifier(lite0, **SHAPE) is first
        assert take_classifier(random, **SHAPE) is not first


def test_layers_that_draw_by_themselves_are_built_anew(tmp_path: Path) -> None:
    """EfficientNetB0 drops paths by seeds that depend on how many numbers its initial weights took."""
    random = ModelConfig(backbone="EfficientNetB0", weights="none")
    with keeping_classifier():
        first = take_classifier(random, **SHAPE)
        path = tmp_path / "own.weights.h5"
        backbone_of(first).save_weights(path)
        loaded = random.model_copy(update={"weights": str(path)})
        other = take_classifier(loaded, **SHAPE)
        assert take_classifier(loaded, **SHAPE) is other
        assert take_classifier(loaded, **SHAPE, weights_follow=True) is not other
