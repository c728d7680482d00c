"""The export stage: every format is written, loaded again and compared with the trained model before anything is published."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import ModelConfig
from pipelines.contracts import ExportedModel, PreparedImages, TrainedModel
from pipelines.data.decode import SERVED_FORMATS
from pipelines.data.decoder import ImageDecoder
from pipelines.data.prepare import read_examples
from pipelines.errors import ParityError
from pipelines.export.parity import Probe, check_parity
from pipelines.export.served import write_saved_model
from pipelines.models.assemble import with_probabilities
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.signals import put_off_signals
from pipelines.sources.folder import read_unchanged
from pipelines.store.artifacts import disk_errors, publish, scratch_folder, write_json
from pipelines.training.state import rebuild

MODEL, SAVED_MODEL, MANIFEST = "model.keras", "savedmodel", "manifest.json"
COMPARED_IMAGES = 32


def export(
    home: Path,
    root: Path,
    prepared: PreparedImages,
    trained: TrainedModel,
    *,
    split: str,
    model: ModelConfig,
    report: Report = ignore_progress,
) -> ExportedModel:
    """Writes `model.keras` and the SavedModel, proves both on stored images of `split`, and publishes them with a manifest.

    Raises:
        ParityError: an exported model does not give the trained model's probabilities.
        SourceChangedError: an image to compare on is not what the scan saw.
    """
    classifier = with_probabilities(rebuild(home, prepared, trained, model=model))
    resize = cast(Literal["stretch", "crop"], prepared.resize)
    with (
        put_off_signals() as let_signals_through,
        scratch_folder(home) as scratch,
        Probe() as probe,
    ):

        def done(step: int, what: str) -> None:
            report(Progress(step, 4, "steps", what))
            let_signals_through()

        folder = scratch / "export"
        folder.mkdir()
        with disk_errors(home):
            write_saved_model(
                folder / SAVED_MODEL,
                classifier,
                classes=prepared.classes,
                image_size=prepared.image_size,
                resize=resize,
            )
        done(1, "SavedModel written")
        contents, pixels = _images_to_compare(home, root, prepared, split)
        with ThreadPoolExecutor(1) as pool:  # the fresh process takes as long as all the rest
            asked = pool.submit(probe.ask, folder / SAVED_MODEL, contents, scratch=scratch / "asked")
            with disk_errors(home):
                classifier.save(folder / MODEL)
            done(2, "model.keras written")
            expected = _ask(classifier, pixels)
            differences = [check_parity(MODEL, expected, _ask(keras.saving.load_model(folder / MODEL), pixels))]
            done(3, "model.keras proved equal")
            received, names = asked.result()
        if tuple(names) != prepared.classes:
            raise ParityError(f"the SavedModel names its classes {names}, the trained model {list(prepared.classes)}")
        differences.append(check_parity("the SavedModel", expected, received))
        done(4, "SavedModel proved equal")
        parity = {"images": len(contents), "max_difference": max(differences)}
        write_json(folder / MANIFEST, _manifest(prepared, model, parity))
        artifact = publish(home, "export", folder)
    return ExportedModel(artifact=artifact, max_difference=max(differences), compared=len(contents))


def _ask(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities; without building a graph for one batch."""
    return np.asarray(model(pixels.astype(np.float32), training=False))


def _images_to_compare(home: Path, root: Path, prepared: PreparedImages, split: str) -> tuple[list[bytes], NDArray[np.uint8]]:
    """Files spread over the split that the SavedModel can read, and what the image store holds of them.

    Where it can read none (all are WebP, say), the stored pixels themselves, as PNG. An encoded store holds nearly what
    is in a file, and nearly is not enough for a proof: then the files are decoded again.
    """
    examples, reader = read_examples(home, prepared, split)
    served = np.flatnonzero(examples.served)
    candidates = served if len(served) else np.arange(len(examples))
    picked = np.unique(candidates[np.linspace(0, len(candidates) - 1, COMPARED_IMAGES).astype(np.int64)])
    pixels = reader.gather(picked)
    if not len(served):
        return [tf.io.encode_png(image).numpy() for image in pixels], pixels
    paths, digests = examples.paths, examples.digests
    contents = [read_unchanged(root, paths[number], digests[number]) for number in picked]
    if prepared.layout == "encoded":
        decoder = ImageDecoder(image_size=prepared.image_size, resize=cast(Literal["stretch", "crop"], prepared.resize))
        pixels = np.stack([decoder.decode(content)[0] for content in contents])
    return contents, pixels


def _manifest(prepared: PreparedImages, model: ModelConfig, parity: dict[str, Any]) -> dict[str, Any]:
    return {
        "classes": list(prepared.classes),
        "image_size": prepared.image_size,
        "resize": prepared.resize,
        "backbone": model.backbone,
        "input": "model.keras: float32 [batch, size, size, 3], RGB 0 to 255; savedmodel: string [batch], bytes of image files",
        "served_formats": list(SERVED_FORMATS),
        "prepare_only_formats": list(prepared.prepare_only_formats),
        "parity": parity,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
