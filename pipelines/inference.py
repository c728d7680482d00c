"""A finished model at work: a run folder is loaded, files are decoded as in training, and their classes predicted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import yaml
from numpy.typing import NDArray

from pipelines.data.batches import EVALUATION_BATCH_SIZE
from pipelines.data.decoder import ImageDecoder
from pipelines.errors import ImageDecodeError, InputError, one_line
from pipelines.recipes import parse_recipe
from pipelines.run_folder import CONFIG
from pipelines.signals import put_off_signals
from pipelines.sources.examine import examine_image
from pipelines.store.artifacts import read_json


@dataclass(frozen=True)
class FinishedModel:
    """A model with what is needed to use it.

    Attributes:
        model: Keras model, float32 [B, S, S, 3] in 0 to 255 -> probabilities float32 [B, classes].
        classes: names in label order.
        image_size: S, px.
        resize: how images were made square for training.
        max_pixels: per image; what ingest would have refused is not predicted either.
    """

    model: Any
    classes: tuple[str, ...]
    image_size: int
    resize: Any
    max_pixels: int


@dataclass(frozen=True)
class Answers:
    """What a model says about files.

    Attributes:
        probabilities: float32 [n, classes]; NaN in the rows of files that could not be read.
        reasons: of each file, why it could not be read, or None.
    """

    probabilities: NDArray[np.float32]
    reasons: list[str | None]


def load_finished(folder: Path) -> FinishedModel:
    """Loads the model of a run folder.

    Raises:
        InputError: the folder is none, or its files can't be read.
    """
    try:
        manifest = read_json(folder / "manifest.json")
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        recipe = parse_recipe(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))
        classes, image_size, resize = tuple(manifest["classes"]), manifest["image_size"], manifest["resize"]
        return FinishedModel(model, classes, image_size, resize, recipe.max_pixels)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            "`MODEL` must be a run folder with model.keras, manifest.json and config.yaml;"
            f" {str(folder)!r} is none ({one_line(error)})"
        ) from error


def answer(
    finished: FinishedModel, read: Sequence[Callable[[], bytes]], *, report: Callable[[int], None] = lambda _: None
) -> Answers:
    """Predicts files, decoded in parallel and batch by batch, so that memory does not grow with their number.

    Args:
        finished: the model.
        read: one function per file that gives its bytes; an OSError or an ImageDecodeError becomes the file's reason.
        report: called with the number of files done.
    """
    decoder = ImageDecoder(image_size=finished.image_size, resize=finished.resize)
    probabilities = np.full((len(read), len(finished.classes)), np.nan, np.float32)
    reasons: list[str | None] = []
    # More threads would only hold more decoded photos at once.
    with ThreadPoolExecutor(os.cpu_count()) as pool, put_off_signals() as let_signals_through:
        for start in range(0, len(read), EVALUATION_BATCH_SIZE):
            batch = read[start : start + EVALUATION_BATCH_SIZE]
            decoded = list(pool.map(lambda get: _decode(get, decoder, finished.max_pixels), batch))
            readable = [number for number, image in enumerate(decoded) if not isinstance(image, str)]
            if readable:
                pixels = np.stack([np.asarray(decoded[number]) for number in readable])
                rows = np.asarray(readable) + start
                probabilities[rows] = finished.model.predict_on_batch(pixels.astype(np.float32))
            reasons += [image if isinstance(image, str) else None for image in decoded]
            report(len(reasons))
            let_signals_through()
    return Answers(probabilities, reasons)


def _decode(read: Callable[[], bytes], decoder: ImageDecoder, max_pixels: int) -> NDArray[np.uint8] | str:
    """Pixels, or why there are none."""
    try:
        contents = read()
        examine_image(contents, max_pixels=max_pixels)
        return decoder.decode(contents)[0]
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except ImageDecodeError as error:
        return str(error)
