"""The gate: reads two run folders, asks both exports about the current test images, decides, and writes `gate.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config import GateConfig
from pipelines.errors import InputError, one_line
from pipelines.export.parity import TOLERANCE
from pipelines.gate.answers import ask
from pipelines.gate.compare import Comparison, compare
from pipelines.gate.decide import Decision, decide
from pipelines.gate.evidence import Evidence, Parity, Recall
from pipelines.gate.fairness import FairImages, find_fair_images
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.run_folder import GATE, MODEL
from pipelines.store.artifacts import file_digest, file_in_place, read_json, write_json


def judge_challenger(
    root: Path,
    challenger: Path,
    champion: Path | None,
    *,
    home: Path,
    config: GateConfig,
    near_equal_bits: int,
    report: Report = ignore_progress,
) -> Decision:
    """Decides whether a challenger takes the champion's place, and writes `gate.json` into the challenger's run folder.

    Both are asked about the very files of the challenger's test split, each through its own `model.keras` with the image size
    and the cropping that it was trained with. A file that one of them refuses counts as an answer that is wrong.

    Args:
        root: the source, to which the paths of the challenger's index are relative.
        challenger: run folder.
        champion: run folder of the model in use; None where there is none.
        home: where both models' answers are remembered; no image is asked about twice.
        config: the recipe's section.
        near_equal_bits: as `split.near_equal_bits` of the recipe.
        report: told how many answers are there.

    Raises:
        InputError: a run folder can't be read.
        SourceChangedError: a test image is not what the scan saw.
    """
    own, other = _read_run(challenger), _read_run(champion) if champion else None
    evidence = Evidence(own.model_sha256, other.model_sha256 if other else None, own.parity)
    if champion is None or other is None:
        return _write(challenger, decide(evidence, config))
    new = [name for name in own.classes if name not in other.classes]
    vanished = tuple(name for name in other.classes if name not in own.classes)
    evidence = replace(evidence, new=dict.fromkeys(new), vanished=vanished)
    if not config.enabled or not own.parity.holds:
        return _write(challenger, decide(evidence, config))
    images = find_fair_images(challenger, champion, near_equal_bits=near_equal_bits)
    names = [*own.classes, *vanished]
    total = len(images.fair)

    def predict(folder: Path, before: int) -> NDArray[np.int64]:
        def done(judged: int) -> None:
            report(Progress(before + judged, 2 * total, "answers"))

        return _encode(ask(home, root, folder, images.fair, report=done), names)

    before = predict(champion, 0)
    now = predict(challenger, total)
    decision = decide(_weigh(evidence, images, before, now, names=names, config=config), config)
    return _write(challenger, decision, images)


def _weigh(
    evidence: Evidence,
    images: FairImages,
    champion: NDArray[np.int64],
    challenger: NDArray[np.int64],
    *,
    names: Sequence[str],
    config: GateConfig,
) -> Evidence:
    """The evidence, completed by both models' answers; those about new classes are no part of the comparison."""
    labels = _encode([image.label for image in images.fair], names)
    of_new = {name: labels == names.index(name) for name in evidence.new}
    shared = ~np.any([np.zeros(len(labels), np.bool_), *of_new.values()], axis=0)
    unchanged = np.array([image.path in images.unchanged for image in images.fair], np.bool_)

    def compare_on(chosen: NDArray[np.bool_]) -> Comparison | None:
        if not chosen.any():
            return None
        answers = champion[chosen], challenger[chosen]
        return compare(labels[chosen], *answers, classes=names, confidence=config.confidence)

    return replace(
        evidence,
        new={name: _recall(own, challenger == labels) for name, own in of_new.items()},
        fair=int(shared.sum()),
        excluded=len(images.excluded),
        known=images.known,
        relabelled=len(images.relabelled),
        comparison=compare_on(shared),
        unchanged=compare_on(shared & unchanged),
    )


@dataclass(frozen=True)
class _Run:
    """What is known of a run folder before its model is loaded."""

    classes: tuple[str, ...]
    parity: Parity
    model_sha256: str


def _read_run(folder: Path) -> _Run:
    try:
        manifest = read_json(folder / "manifest.json")
        return _Run(tuple(manifest["classes"]), _read_parity(manifest.get("parity")), file_digest(folder / MODEL))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"a run folder must hold model.keras and manifest.json; {str(folder)!r} is none ({one_line(error)})"
        ) from error


def _read_parity(proof: Any) -> Parity:
    try:
        images, difference = int(proof["images"]), float(proof["max_difference"])
    except (KeyError, TypeError, ValueError):
        return Parity(holds=False, text="the export is not proved: manifest.json says nothing of it")
    proved = images > 0 and difference <= TOLERANCE
    verb = "is" if proved else "is not"
    text = f"the export {verb} proved: probabilities differ by {difference:.2g} on {images} images, and may by {TOLERANCE:g}"
    return Parity(proved, text)


def _encode(labels: Sequence[str | None], names: Sequence[str]) -> NDArray[np.int64]:
    """Indices into `names`, int64 [n]; -1 where there is no label."""
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([-1 if label is None else numbers[label] for label in labels], np.int64)


def _recall(own: NDArray[np.bool_], right: NDArray[np.bool_]) -> Recall | None:
    return Recall(support=int(own.sum()), recall=float(right[own].mean())) if own.any() else None


def _write(challenger: Path, decision: Decision, images: FairImages | None = None) -> Decision:
    named = {"excluded": images.excluded, "relabelled": images.relabelled} if images else {}
    with file_in_place(challenger / GATE) as temporary:
        write_json(temporary, decision.model_dump(mode="json") | named)
    return decision
