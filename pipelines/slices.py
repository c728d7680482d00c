"""The parts of a recipe that a stage reads where these are no section of their own. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.config import AugmentConfig, CacheConfig, ModelConfig, Precision, Recipe, SplitConfig
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
    devices: int
    weights_sha256: str | None


@dataclass(frozen=True)
class EmbedConfig:
    """What decides which activations are stored.

    `layers` are those that phase 2 trains, None without phase 2; the epochs of both phases say what storing them saves; of
    `model` only what makes the frozen part is left as it is.
    """

    seed: int
    augment: AugmentConfig
    cache: CacheConfig
    model: ModelConfig
    weights_sha256: str | None
    layers: int | str | None
    head_epochs: int
    fine_tune_epochs: int


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
    return TrainingConfig(
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        sampling=recipe.sampling,
        augment=recipe.augment,
        model=recipe.model,
        precision=recipe.resources.precision,
        devices=recipe.resources.devices,
        weights_sha256=_weights_digest(recipe.model),
    )


def embed_slice(recipe: Recipe) -> EmbedConfig:
    """The part that the embed stage reads.

    Raises:
        InputError: `model.weights` names a file that can't be read.
    """
    return EmbedConfig(
        seed=recipe.seed,
        augment=recipe.augment,
        cache=recipe.cache,
        model=recipe.model.model_copy(update={"hidden_units": 0, "dropout": 0.0}),
        weights_sha256=_weights_digest(recipe.model),
        layers=recipe.fine_tune.layers if recipe.fine_tune.epochs else None,
        head_epochs=recipe.head.epochs,
        fine_tune_epochs=recipe.fine_tune.epochs,
    )


def _weights_digest(model: ModelConfig) -> str | None:
    if model.weights in ("imagenet", "none"):
        return None
    try:
        return file_digest(Path(model.weights).expanduser())
    except OSError as error:
        raise InputError(
            f"`model.weights` must be imagenet, none or a file; {model.weights!r} can't be read ({error.strerror})"
        ) from error
