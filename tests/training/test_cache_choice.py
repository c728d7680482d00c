"""What of the frozen part's work is stored, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import Recipe
from pipelines.slices import EmbedConfig, embed_slice
from pipelines.training.cache_choice import Offer, Showings, choose_stored, count_views, seconds_saved, why_off

GIB = 2**30
EPOCHS: dict[str, Any] = {"head": {"epochs": 10}, "fine_tune": {"epochs": 5}}


def config(**recipe: Any) -> EmbedConfig:
    return embed_slice(Recipe.model_validate(recipe))


FEATURES, ACTIVATIONS = Offer(1000, 200_000_000), Offer(10_000, 150_000_000)


def showings(rows: int) -> Showings:
    return Showings(images=rows // 2, rows=rows, pixel_bytes=76_800)


def choose(
    *, rows: int = 1000, features: Offer = FEATURES, activations: Offer | None = ACTIVATIONS, **recipe: Any
) -> tuple[str, str]:
    return choose_stored(config(**{**EPOCHS, **recipe}), showings(rows), features=features, activations=activations)


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
    within = "within `cache.budget_gib` (20)"
    assert choose() == ("activations", f"10.5 MiB, saves about 21 s on two cores, {within}")
    assert choose(rows=100_000) == ("activations", f"1.0 GiB, saves about 34 min on two cores, {within}")
    over = {"rows": 2 * GIB // 1000}
    said = "2.0 GiB, saves about 8 h on two cores; activations too would be 22.0 GiB, more than `cache.budget_gib` (20)"
    assert choose(**over) == ("features", said)
    small = {"cache": {"budget_gib": 0.5}}
    assert choose(**over, **small) == ("off", "features alone would be 2.0 GiB, more than `cache.budget_gib` (0.5)")


def test_seconds_are_saved_by_epochs_and_spent_on_rows() -> None:
    """200 million multiply-adds are 1/300 s on two cores, and 76,800 bytes 154 microseconds of disk."""
    ten, five = 10 * 500 * (0.2 / 60 + 75_800 / 5e8), 5 * 500 * (0.15 / 60 + 66_800 / 5e8)
    both, alone = (
        seconds_saved(config(**EPOCHS), showings(1000), features=FEATURES, activations=offer) for offer in (ACTIVATIONS, None)
    )
    assert alone == pytest.approx(ten - 1000 * (0.2 / 60 + 1_000 / 5e8))
    assert both == pytest.approx(ten + five - 1000 * (0.2 / 60 + 11_000 / 5e8))


def test_auto_stores_only_what_pays_for_its_bytes() -> None:
    low = Offer(800_000, 60_000_000)  # behind the stem of a large network: 1 ms of work, 1.6 ms of disk in each epoch
    stored, said = choose(activations=low)
    assert stored == "features"
    assert said.endswith("; activations too would be 763.9 MiB and save less")
    assert choose(features=Offer(1000, 0), activations=None, head={"epochs": 10})[0] == "features"  # read instead of pixels
    costly = Offer(1_000_000, 1_000_000)
    assert choose(features=costly, activations=costly) == ("off", "to store 953.7 MiB or more would take longer than it saves")


def test_what_is_asked_for_is_done_whatever_it_takes() -> None:
    small: dict[str, Any] = {"rows": GIB}
    assert choose(**small, cache={"mode": "activations"})[0] == "activations"
    assert choose(**small, cache={"mode": "features"})[0] == "features"


def test_without_a_line_below_phase_2_there_are_features_only() -> None:
    said = "1.0 MiB, saves about 14 s on two cores; "
    assert choose(activations=None, fine_tune={"layers": "all"}) == ("features", f"{said}all layers learn in phase 2")
    assert choose(activations=None, fine_tune={"epochs": 0}) == ("features", f"{said}there is no phase 2")
    assert choose(activations=None, fine_tune={"epochs": 0}, cache={"mode": "activations"})[0] == "features"


def test_views_of_images_that_are_not_changed_are_one() -> None:
    changed, plain = config().augment, config(augment={"where": "none"}).augment
    still = config(augment={"horizontal_flip": False, "rotation": 0, "zoom": 0, "engine": "tensorflow"}).augment
    assert [count_views(augment, 3) for augment in (changed, plain, still)] == [3, 1, 1]
