"""Two models that answered about the same images: by how much one is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class ClassComparison(BaseModel):
    """One class: how many images it has, and the recall of both models on them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    support: int
    champion_recall: float
    challenger_recall: float

    @property
    def fall(self) -> float:
        """By how much the challenger's recall is lower, counted in whole images so that no rounding decides."""
        return round((self.champion_recall - self.challenger_recall) * self.support) / self.support


class Comparison(BaseModel):
    """Both models on the same images.

    Attributes:
        images: how many.
        difference: of the accuracies, challenger's less champion's.
        interval: lower and upper end of the difference, see `bootstrap_interval`.
        only_champion_right, only_challenger_right: images that one model alone got right.
        mcnemar_p: two-sided, of McNemar's exact test: how likely the two numbers before differ so much by chance.
        per_class: by class, those without an image left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    champion_accuracy: float
    challenger_accuracy: float
    difference: float
    interval: tuple[float, float]
    confidence: float
    only_champion_right: int
    only_challenger_right: int
    mcnemar_p: float
    per_class: dict[str, ClassComparison]


def compare(
    labels: NDArray[np.int64],
    champion: NDArray[np.int64],
    challenger: NDArray[np.int64],
    *,
    classes: Sequence[str],
    confidence: float,
) -> Comparison:
    """Compares two models' predictions of the same images.

    Args:
        labels: int64 [n], n > 0, index into `classes`.
        champion: int64 [n], as `labels`; -1 where there was no answer, which is wrong.
        challenger: the same of the other model.
        classes: names.
        confidence: of the interval, in 0 to 1.

    Raises:
        ValueError: no images.
    """
    images = len(labels)
    if not images:
        raise ValueError("`labels` must hold at least one image; received none")
    before, now = champion == labels, challenger == labels
    lost, won = int((before & ~now).sum()), int((~before & now).sum())
    return Comparison(
        images=images,
        champion_accuracy=float(before.mean()),
        challenger_accuracy=float(now.mean()),
        difference=(won - lost) / images,
        interval=bootstrap_interval(won, lost, images, confidence=confidence),
        confidence=confidence,
        only_champion_right=lost,
        only_challenger_right=won,
        mcnemar_p=mcnemar_p(won, lost),
        per_class={
            name: ClassComparison(
                support=int(own.sum()), champion_recall=float(before[own].mean()), challenger_recall=float(now[own].mean())
            )
            for number, name in enumerate(classes)
            if (own := labels == number).any()
        },
    )


def mcnemar_p(won: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: of the images that one model alone got right, is each model's half?

    1 where there are none (McNemar, 1947; the exact form is the sign test).
    """
    from scipy.stats import binomtest  # half a second, which every flow would pay at its start

    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def bootstrap_interval(won: int, lost: int, images: int, *, confidence: float) -> tuple[float, float]:
    """Percentile interval of the paired bootstrap of the difference in accuracy, as if with endless resamples.

    Resampling images draws their differences (1 won, -1 lost, 0 else) independently, so that the sum of a resample has the
    `images`-fold convolution of their distribution: a power of its Fourier transform. So there is no seed, and no chance in a
    decision; `scipy.stats.bootstrap(paired=True)` comes near it with many resamples, at `images` times as much work each, and
    its default method (BCa) is undefined where the models agree on everything. The interval is then [0, 0].

    Args:
        won: images that only the challenger got right.
        lost: images that only the champion got right.
        images: all of them, at least 1.
        confidence: in 0 to 1.

    Returns:
        Lower and upper end, each a difference that a resample can have (Efron and Tibshirani, 1993, chapter 13).
    """
    chances = np.zeros(2 * images + 1)
    chances[0], chances[1], chances[-1] = (images - won - lost) / images, won / images, lost / images
    sums = np.fft.irfft(np.fft.rfft(chances) ** images, len(chances))
    cumulated = np.cumsum(np.roll(sums, images))  # of sums from -images to images
    low, high = np.searchsorted(cumulated, ((1 - confidence) / 2, (1 + confidence) / 2)) - images
    return float(low / images), float(high / images)
