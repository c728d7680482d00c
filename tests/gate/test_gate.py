"""The gate from two run folders to `gate.json`, with answers in place of models; `tests/flows/test_gate.py` has real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.config import GateConfig
from pipelines.gate import gate
from pipelines.gate.decide import Decision
from pipelines.gate.fairness import TestImage
from pipelines.store.artifacts import write_json
from pipelines.store.index import write_index

CLASSES = ["cat", "dog"]
SWAPPED = {"cat": "dog", "dog": "cat"}
Answer = Callable[[str], str]  # from an image's true class to what a model takes it for


def write_run(folder: Path, labels: dict[str, str]) -> Path:
    """A run folder with one training image, and test images with these labels by path."""
    folder.mkdir()
    (folder / "model.keras").write_text(folder.name)
    write_json(folder / "manifest.json", {"classes": CLASSES, "parity": {"images": 1, "max_difference": 0.0}})
    rows = [
        {"path": path, "label": label, "split": split, "status": "ok", "sha256": digest, "perceptual_hash": digest}
        for path, label, split in [("seen.jpg", "cat", "train"), *((path, label, "test") for path, label in labels.items())]
        for digest in [hashlib.sha256(path.encode()).hexdigest()]
    ]
    write_index(folder / "index.parquet", rows)
    return folder


def true_class(path: str) -> str:
    return path.partition("-")[0]


def judge(champion: Path, challenger: Path, answers: dict[Path, Answer], monkeypatch: pytest.MonkeyPatch) -> Decision:
    def ask(home: Path, root: Path, folder: Path, images: Sequence[TestImage], **options: object) -> list[str]:
        return [answers[folder](true_class(image.path)) for image in images]

    monkeypatch.setattr(gate, "ask", ask)
    places = {"home": challenger.parent, "config": GateConfig(), "near_equal_bits": 16}
    return gate.judge_challenger(challenger.parent, challenger, champion, **places)  # type: ignore[arg-type]


def test_a_challenger_that_learned_wrong_labels_of_new_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {f"{name}-{number}.jpg": name for name in CLASSES for number in range(50)}
    new = {f"{name}-new-{number}.jpg": SWAPPED[name] for name in CLASSES for number in range(150)}
    champion, challenger = write_run(tmp_path / "old", known), write_run(tmp_path / "new", {**known, **new})
    answers: dict[Path, Answer] = {champion: str, challenger: SWAPPED.__getitem__}
    decision = judge(champion, challenger, answers, monkeypatch)
    assert decision.comparison is not None
    assert (decision.comparison.images, decision.comparison.difference) == (400, 0.5)
    assert not decision.promote
    assert [check.name for check in decision.checks if not check.passed] == [
        "accuracy on unchanged images",
        "classes on unchanged images",
    ]
    written = json.loads((challenger / "gate.json").read_text())
    assert (written["promote"], written["unchanged"]["images"], written["unchanged"]["challenger_accuracy"]) == (False, 100, 0)
    assert "on the 100 test images that the champion's data held with the same label" in written["reasons"][0]
