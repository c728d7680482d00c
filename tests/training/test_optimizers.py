"""Which variables decay, and at which share of the rate each of them learns."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from pipelines.config import BACKBONE_NAMES, FineTuneConfig, HeadConfig, ModelConfig
from pipelines.models.assemble import backbone_of, build_classifier, set_trainable_top
from pipelines.training.optimizers import build_optimizer, treatments

DECAYING = HeadConfig(optimizer="adamw", weight_decay=0.1)
LAYERED = FineTuneConfig(layers=1000, layer_decay=0.5)
KERNELS = {"kernel", "depthwise_kernel", "pointwise_kernel"}


@pytest.fixture(scope="module", params=BACKBONE_NAMES)
def model(request: pytest.FixtureRequest) -> keras.Model:
    """A classifier that learns whole, normalizations too, as one that starts from scratch."""
    model = build_classifier(ModelConfig(backbone=request.param, weights="none"), image_size=71, num_classes=2, seed=1)
    set_trainable_top(model, layers=1000)
    for layer in backbone_of(model).layers:
        layer.trainable = True
    return model


@pytest.mark.slow
def test_kernels_decay_and_nothing_else(model: keras.Model) -> None:
    variables = model.trainable_variables
    decays = {
        variable.path: treatment.weight_decay
        for variable, treatment in zip(variables, treatments(model, DECAYING), strict=True)
    }
    assert set(decays.values()) == {0.0, 0.1}
    assert [path for path, decay in decays.items() if decay] == [path for path in decays if path.split("/")[-1] in KERNELS]


@pytest.mark.slow
def test_rates_fall_from_the_head_down_and_each_layer_has_one(model: keras.Model) -> None:
    variables, treated = model.trainable_variables, treatments(model, LAYERED)
    assert len(variables) == len(treated)
    factors = [treatment.factor for treatment in treated]
    assert factors == sorted(factors)
    assert factors[-2:] == [1, 1]  # kernel and bias of the logits
    of_layers: dict[str, set[float]] = {}
    for variable, factor in zip(variables, factors, strict=True):
        of_layers.setdefault(variable.path.rpartition("/")[0], set()).add(factor)
    assert all(len(factors) == 1 for factors in of_layers.values())
    kernels = sum(any(variable.path == f"{layer}/{name}" for variable in variables for name in KERNELS) for layer in of_layers)
    assert min(factors) == 0.5 ** (kernels - 1)
    assert len(set(factors)) == kernels


def small() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(2, 1, name="b"), layers.BatchNormalization(name="b_norm")])
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.RandomFlip(seed=2),
            layers.Conv2D(2, 1, name="a"),
            inner,
            layers.Flatten(),
            layers.LayerNormalization(name="c_norm"),
            layers.Dense(2, name="c"),
        ]
    )


def factors_of(model: keras.Model, settings: Any) -> dict[str, float]:
    treated = treatments(model, settings)
    return {variable.path: treatment.factor for variable, treatment in zip(model.trainable_variables, treated, strict=True)}


def test_a_normalization_goes_with_the_layer_before_it_and_nested_models_are_no_step() -> None:
    by_layer = {path.split("/")[-2]: factor for path, factor in factors_of(small(), LAYERED).items()}
    assert by_layer == {"a": 0.25, "b": 0.5, "b_norm": 0.5, "c_norm": 0.5, "c": 1}


def test_the_upper_part_of_a_network_learns_at_the_rates_that_it_has_in_the_whole() -> None:
    whole = small()
    upper = keras.Sequential(whole.layers[2:])
    in_whole = factors_of(whole, LAYERED)
    assert {path: in_whole[path] for path in factors_of(upper, LAYERED)} == factors_of(upper, LAYERED)


def test_frozen_layers_are_distances_too() -> None:
    model = small()
    model.get_layer("c").trainable = False
    assert {path.split("/")[-2]: factor for path, factor in factors_of(model, LAYERED).items()}["a"] == 0.25


def test_the_head_has_one_rate() -> None:
    assert set(factors_of(small(), DECAYING).values()) == {1.0}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_gradients_of_zero_move_what_decays_by_its_share_of_the_rate(name: str) -> None:
    """By rate * factor * decay of itself, and nothing else; Adam does not move at all."""
    model = small()
    decay = {} if name == "adam" else {"weight_decay": 0.1}
    settings = FineTuneConfig.model_validate({"optimizer": name, "layer_decay": 0.5, "learning_rate": 0.2, **decay})
    before = [np.array(variable) for variable in model.trainable_variables]
    build_optimizer(model, settings).apply([np.zeros_like(array) for array in before], model.trainable_variables)
    for variable, array, factor in zip(model.trainable_variables, before, factors_of(model, settings).values(), strict=True):
        lost = 0.2 * factor * 0.1 if decay and variable.name == "kernel" else 0
        np.testing.assert_allclose(variable, array * (1 - lost), rtol=1e-6)
