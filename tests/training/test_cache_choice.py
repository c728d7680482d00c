"""What of the frozen part's work is stored, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import Recipe
from pipelines.slices import EmbedConfig, embed_slice
from pipelines.training.cache_choice import choose_stored, count_views, why_off

GIB = 2**30


def config(**recipe: Any) -> EmbedConfig:
    return embed_slice(Recipe.model_validate(recipe))


def choose(*, rows: int = 1000, features: int = 1000, activations: int | None = 10_000, **recipe: Any) -> tuple[str, str]:
    return choose_stored(config(**recipe), rows=rows, feature_bytes=features, activation_bytes=activations)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"cache": {"mode": "off"}}, "as `cache.mode` says"),
        (
            {"augment": {"mixup": 0.2}},
            "can't be had with `augment.mixup` or `augment.cutmix`, which mix images anew in each epoch",
        ),
        ({"augment": {"where": "model"}}, "can't be had with `augment.where: model`, whose layers run in the training step"),
        ({"head": {"epochs": 1}, "fine_tune": {"epochs": 1}}, "there are no more epochs than `cache.views` (2)"),
        ({}, None),
        ({"cache": {"mode": "activations"}, "head": {"epochs": 1}, "fine_tune": {"epochs": 1}}, None),
        # Soft labels are made in the data set, so that elsewhere the keys do nothing.
        ({"augment": {"mixup": 0.2, "where": "none"}}, None),
    ],
)
def test_some_recipes_store_nothing(recipe: dict[str, Any], reason: str | None) -> None:
    assert why_off(config(**recipe)) == reason


@pytest.mark.parametrize("mode", ["activations", "features"])
def test_what_can_not_be_had_is_refused_where_it_is_asked_for(mode: str) -> None:
    for augment in ({"cutmix": 1.0}, {"where": "model"}):
        with pytest.raises(
            ValueError, match=rf"`cache.mode: {mode}` can't be had with `augment.*; use `cache.mode: auto` or `off`"
        ):
            config(cache={"mode": mode}, augment=augment)


def test_auto_takes_what_the_budget_allows() -> None:
    assert choose() == ("activations", "10.5 MiB, within `cache.budget_gib` (20)")
    over = {"rows": 2 * GIB // 1000}
    assert choose(**over) == ("features", "2.0 GiB; activations too would be 22.0 GiB, more than `cache.budget_gib` (20)")
    small = {"cache": {"budget_gib": 0.5}}
    assert choose(**over, **small) == ("off", "features alone would be 2.0 GiB, more than `cache.budget_gib` (0.5)")


def test_what_is_asked_for_is_done_whatever_it_takes() -> None:
    small: dict[str, Any] = {"rows": GIB}
    assert choose(**small, cache={"mode": "activations"})[0] == "activations"
    assert choose(**small, cache={"mode": "features"})[0] == "features"


def test_without_a_line_below_phase_2_there_are_features_only() -> None:
    assert choose(activations=None, fine_tune={"layers": "all"}) == ("features", "1.0 MiB; all layers learn in phase 2")
    assert choose(activations=None, fine_tune={"epochs": 0}) == ("features", "1.0 MiB; there is no phase 2")
    assert choose(activations=None, fine_tune={"epochs": 0}, cache={"mode": "activations"})[0] == "features"


def test_views_of_images_that_are_not_changed_are_one() -> None:
    changed, plain = config().augment, config(augment={"where": "none"}).augment
    still = config(augment={"horizontal_flip": False, "rotation": 0, "zoom": 0, "engine": "tensorflow"}).augment
    assert [count_views(augment, 3) for augment in (changed, plain, still)] == [3, 1, 1]
