"""The parts of a recipe that a stage reads where these are no section of their own. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.config import AugmentConfig, ModelConfig, Precision, Recipe, SplitConfig
from pipelines.errors import InputError
from pipelines.store.artifacts import file_digest


@dataclass(frozen=True)
class IngestConfig:
    """What decides the content of the index."""

    dataset: str
    split: SplitConfig
    max_bad_fraction: float
    max_pixels: int


@dataclass(frozen=True)
class TrainingConfig:
    """What both training phases read, besides their own section.

    `weights_sha256` is the digest of `model.weights` where that is a file, so that another file under its name is noticed.
    """

    seed: int
    batch_size: int
    sampling: Literal["shuffle", "balanced"]
    augment: AugmentConfig
    model: ModelConfig
    precision: Precision
    weights_sha256: str | None


def ingest_slice(recipe: Recipe, *, dataset: str) -> IngestConfig:
    """The part that ingest reads; `dataset` names the ledger of sticky splits."""
    return IngestConfig(
        dataset=dataset,
        split=recipe.split,
        max_bad_fraction=recipe.max_bad_fraction,
        max_pixels=recipe.max_pixels,
    )


def training_slice(recipe: Recipe) -> TrainingConfig:
    """The part that both phases read.

    Raises:
        InputError: `model.weights` names a file that can't be read.
    """
    digest = None
    if recipe.model.weights not in ("imagenet", "none"):
        try:
            digest = file_digest(Path(recipe.model.weights).expanduser())
        except OSError as error:
            raise InputError(
                f"`model.weights` must be imagenet, none or a file; {recipe.model.weights!r} can't be read ({error.strerror})"
            ) from error
    return TrainingConfig(
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        sampling=recipe.sampling,
        augment=recipe.augment,
        model=recipe.model,
        precision=recipe.resources.precision,
        weights_sha256=digest,
    )
