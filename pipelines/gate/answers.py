"""What a model answers about an image, asked once: a champion need not be loaded again for images that it has judged before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pipelines.data.prepare import DECODE_VERSION
from pipelines.gate.fairness import TestImage
from pipelines.inference import answer, load_finished
from pipelines.run_folder import CONFIG, MODEL
from pipelines.sources.folder import read_unchanged
from pipelines.store.artifacts import file_digest, file_in_place, read_json, write_json


def ask(
    home: Path, root: Path, folder: Path, images: Sequence[TestImage], *, report: Callable[[int], None]
) -> list[str | None]:
    """The class that a model takes each image for; None where it can't read the file.

    An answer is remembered under the digests of the model, of what says how it sees an image, and of the image's file. In a
    batch with others a probability may differ in its last bits from one that is remembered.

    Args:
        home: where answers are remembered.
        root: the source, to which the images' paths are relative.
        folder: run folder of the model.
        images: to judge.
        report: called with the number of images that are judged.

    Raises:
        InputError: the run folder can't be read.
        SourceChangedError: an image that was never judged is not what the scan saw.
        RunError: no space left on the device.
    """
    path = _path(home, folder)
    known = _read(path)
    unknown = {image.sha256: image for image in images if image.sha256 not in known}
    before = len(images) - len(unknown)
    report(before)
    if not unknown:
        if known:
            os.utime(path)  # `imagemill clean` goes by when it was last of use
        return [known[image.sha256] for image in images]
    finished = load_finished(folder)
    read = [partial(read_unchanged, root, image.path, image.sha256) for image in unknown.values()]
    answers = answer(finished, read, report=lambda done: report(before + done))
    for sha256, reason, row in zip(unknown, answers.reasons, answers.probabilities, strict=True):
        if reason is None:  # else it may be readable another time
            known[sha256] = finished.classes[int(row.argmax())]
    with file_in_place(path) as temporary:
        write_json(temporary, known)
    return [known.get(image.sha256) for image in images]


def _path(home: Path, folder: Path) -> Path:
    digests = [file_digest(folder / name) for name in (MODEL, "manifest.json", CONFIG)]
    name = hashlib.sha256(f"{DECODE_VERSION} {' '.join(digests)}".encode()).hexdigest()[:32]
    return home / "answers" / f"{name}.json"


def _read(path: Path) -> dict[str, str]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
