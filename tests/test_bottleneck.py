"""The verdict: the part that takes most of the time is named, with its rate and what to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.bottleneck import Rates, judge

USUAL = Rates(
    read=10_000,
    examine=2_000,
    decode=1_500,
    gather=20_000,
    warp=5_000,
    colour=None,
    input=4_900,
    embed=None,
    views=2,
    head_input=4_900,
    head_step=150,
    head_wait=0.01,
    fine_tune_input=4_900,
    fine_tune_step=110,
    fine_tune_wait=0.01,
)


@pytest.mark.parametrize(
    ("changes", "epochs", "bound", "advice"),
    [
        ({}, (10, 10), "the fine-tune step bounds the run: 110 images/s while input gives 4,900", "`fine_tune.layers`"),
        ({}, (20, 10), "the head step bounds the run: 150 images/s while input gives 4,900", "`model.backbone`"),
        (
            {"fine_tune_step": None, "fine_tune_wait": None},
            (1, 0),
            "the head step bounds the run: 150 images/s",
            "a smaller `image_size`",
        ),
        (
            {"head_input": 60, "fine_tune_input": 60, "warp": 40, "head_wait": 0.6, "fine_tune_wait": 0.6},
            (10, 10),
            "the input bounds the run: 60 images/s, and waiting for it takes 60% of a head step, 60% of a fine-tune step",
            "most of it is `warp`: fewer changes in `augment`",
        ),
        (
            {"head_input": 60, "gather": 30, "warp": None, "head_wait": 0.7, "fine_tune_step": None, "fine_tune_wait": None},
            (10, 0),
            "the input bounds the run: 60 images/s, and waiting for it takes 70% of a head step;",
            "most of it is `gather`: a faster disk",
        ),
        (
            {"head_input": 60, "fine_tune_input": 60, "colour": 35, "head_wait": 0.7, "fine_tune_wait": 0.7},
            (10, 10),
            "the input bounds the run",
            "most of it is `colour`",
        ),
        (
            {"head_input": 60, "fine_tune_input": 60, "head_step": None, "head_wait": None, "fine_tune_wait": 0.7},
            (0, 10),
            "the input bounds the run: 60 images/s, and waiting for it takes 70% of a fine-tune step;",
            "most of it is `warp`",
        ),
        ({"head_step": None, "head_wait": None}, (0, 10), "the fine-tune step bounds the run: 110 images/s", "`image_size`"),
        ({"read": 5}, (1, 1), "reading the files bounds the run: 5 images/s", "a faster disk"),
        ({"examine": 20}, (1, 1), "the check for damaged files bounds the run: 20 images/s", "fewer pixels"),
        (
            {"embed": 140, "head_step": 6_000, "fine_tune_step": 1_000},
            (10, 10),
            "the frozen part of the network bounds the run: 140 images/s for 2 views, once per image",
            "fewer `cache.views`",
        ),
        ({"decode": 20}, (1, 1), "decoding bounds the run: 20 images/s", "fewer pixels"),
    ],
)
def test_the_part_that_takes_most_of_the_time_is_named(
    changes: dict[str, float | None], epochs: tuple[int, int], bound: str, advice: str
) -> None:
    sentence = judge(replace(USUAL, **changes), head_epochs=epochs[0], fine_tune_epochs=epochs[1])
    assert sentence.startswith(bound)
    assert advice in sentence
    assert len(sentence.splitlines()) == 1


def test_what_is_done_once_does_not_bound_a_long_run() -> None:
    slow = replace(USUAL, decode=50)
    assert judge(slow, head_epochs=1, fine_tune_epochs=0).startswith("decoding")
    assert judge(slow, head_epochs=10, fine_tune_epochs=0).startswith("the head step")


def test_only_the_fine_tune_step_is_told_to_train_fewer_layers() -> None:
    assert "fine_tune.layers" not in judge(USUAL, head_epochs=20, fine_tune_epochs=1)


def test_a_from_scratch_model_is_not_told_to_train_fewer_layers_which_it_can_not() -> None:
    rates = replace(USUAL, head_step=None, head_wait=None)
    sentence = judge(rates, head_epochs=0, fine_tune_epochs=40, from_scratch=True)
    assert sentence.endswith("; a smaller `image_size` or smaller `model.blocks` would help")


def test_training_that_does_nothing_but_wait_is_bound_by_its_input() -> None:
    starved = replace(USUAL, head_wait=1.0)
    assert judge(starved, head_epochs=1, fine_tune_epochs=1).startswith("the input bounds the run")


STARVED = replace(USUAL, head_input=30_000, head_step=90_000, head_wait=0.75, fine_tune_wait=0.02, fine_tune_input=700)


def test_a_phase_that_waits_for_stored_activations_is_not_told_to_augment_less() -> None:
    sentence = judge(STARVED, head_epochs=10_000, fine_tune_epochs=1, stored=("head", "fine_tune"))
    assert sentence == (
        "the input bounds the run: 30,000 images/s, and waiting for it takes 75% of a head step; it is the reading of stored"
        " activations: a larger `batch_size`, memory that holds all of them or a faster disk would help"
    )


def test_a_phase_that_waits_for_images_is_told_of_these_though_the_other_learns_from_stored_features() -> None:
    rates = replace(STARVED, fine_tune_wait=0.6)
    sentence = judge(rates, head_epochs=1, fine_tune_epochs=10, stored=("head",))
    assert sentence.startswith("the input bounds the run: 700 images/s, and waiting for it takes 60% of a fine-tune step; most")
    assert "most of it is `warp`" in sentence


def test_a_step_is_compared_with_its_own_input() -> None:
    sentence = judge(STARVED, head_epochs=1, fine_tune_epochs=10, stored=("head", "fine_tune"))
    assert sentence.startswith("the fine-tune step bounds the run: 110 images/s while input gives 700;")


def test_an_encoded_store_is_told_to_hold_pixels() -> None:
    slow = replace(USUAL, gather=2_000, head_input=2_000, head_wait=0.7)
    sentence = judge(slow, head_epochs=10, fine_tune_epochs=1, layout="encoded")
    assert "most of it is `gather`, which decodes the store's JPEGs: `store.layout: decoded`" in sentence
    assert "`store.budget_gib`" in sentence
    assert "faster disk" not in sentence
    assert "a faster disk" in judge(slow, head_epochs=10, fine_tune_epochs=1)
