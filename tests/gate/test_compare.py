"""The statistics of the gate against brute force, SciPy and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, recall_score

from pipelines.gate.compare import bootstrap_interval, compare, mcnemar_p

CLASSES = ["a", "b", "c"]


def all_resamples(differences: list[int]) -> list[float]:
    """The mean of each resample that can be drawn, sorted."""
    return sorted(sum(drawn) / len(differences) for drawn in itertools.product(differences, repeat=len(differences)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=5), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_every_resample_there_is(differences: list[int], confidence: float) -> None:
    means = np.array(all_resamples(differences))
    won, lost = differences.count(1), differences.count(-1)
    low, high = bootstrap_interval(won, lost, len(differences), confidence=confidence)
    # An end has at least its share of the resamples at or below it, and what lies below it has less.
    for end, tail in ((low, (1 - confidence) / 2), (high, (1 + confidence) / 2)):
        assert (means <= end + 1e-9).mean() >= tail - 1e-9
        assert (means < end - 1e-9).mean() <= tail + 1e-9


@pytest.mark.parametrize(("won", "lost", "images"), [(30, 20, 500), (3, 12, 150), (0, 4, 60), (200, 150, 2_000)])
def test_the_interval_is_near_that_of_scipy(won: int, lost: int, images: int) -> None:
    before, now = np.zeros(images), np.zeros(images)
    now[:won], before[won : won + lost] = 1, 1
    ends = bootstrap(
        (before, now),
        lambda champion, challenger, axis: challenger.mean(axis) - champion.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=5_000,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    step = math.sqrt(won + lost) / images  # the deviation of a resample; its ends are drawn with a twentieth of that
    np.testing.assert_allclose(bootstrap_interval(won, lost, images, confidence=0.95), ends, atol=0.2 * step + 1 / images)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_the_outcomes_that_are_no_likelier(won: int, lost: int) -> None:
    discordant = won + lost
    chances = [math.comb(discordant, wins) / 2**discordant for wins in range(discordant + 1)]
    expected = sum(chance for chance in chances if chance <= chances[won] * (1 + 1e-9))
    assert mcnemar_p(won, lost) == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=40))
def test_figures_are_those_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    labels, champion, challenger = np.array(rows).T
    comparison = compare(labels, champion, challenger, classes=CLASSES, confidence=0.95)
    assert comparison.champion_accuracy == pytest.approx(accuracy_score(labels, champion))
    assert comparison.challenger_accuracy == pytest.approx(accuracy_score(labels, challenger))
    assert comparison.difference == pytest.approx(comparison.challenger_accuracy - comparison.champion_accuracy)
    assert comparison.interval[0] <= comparison.difference + 1e-9
    assert comparison.difference <= comparison.interval[1] + 1e-9
    assert sum(own.support for own in comparison.per_class.values()) == comparison.images == len(rows)
    for number, name in enumerate(CLASSES):
        if name not in comparison.per_class:
            assert number not in labels
            continue
        own = comparison.per_class[name]
        for recall, predicted in ((own.champion_recall, champion), (own.challenger_recall, challenger)):
            assert recall == pytest.approx(recall_score(labels, predicted, labels=[number], average="macro", zero_division=0))
        assert own.fall == pytest.approx(own.champion_recall - own.challenger_recall)


def test_models_that_agree_leave_nothing_in_doubt() -> None:
    labels = np.array([0, 1, 2, 1])
    comparison = compare(labels, np.array([0, 1, 1, -1]), np.array([0, 1, 0, 2]), classes=CLASSES, confidence=0.95)
    assert (comparison.difference, comparison.interval, comparison.mcnemar_p) == (0, (0, 0), 1)


def test_one_image_can_go_either_way_and_none_can_not_be_compared() -> None:
    one = compare(np.array([0]), np.array([1]), np.array([0]), classes=CLASSES, confidence=0.95)
    assert (one.difference, one.interval, one.mcnemar_p) == (1, (1, 1), 1)
    none = np.array([], np.int64)
    with pytest.raises(ValueError, match="`labels` must hold at least one image"):
        compare(none, none, none, classes=CLASSES, confidence=0.95)


def test_a_hundred_thousand_images_have_the_normal_interval() -> None:
    low, high = bootstrap_interval(2_500, 2_500, 100_000, confidence=0.95)
    deviation = math.sqrt(5_000) / 100_000
    assert -low == pytest.approx(high, abs=2e-5)
    assert high == pytest.approx(1.96 * deviation, rel=1e-2)
