"""The SavedModel: the same pixels as in training, in a process of its own, and a refusal for what it would misread."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import ModelConfig
from pipelines.data.decoder import ImageDecoder
from pipelines.errors import ParityError
from pipelines.export import parity
from pipelines.export.parity import Probe, check_parity
from pipelines.export.served import write_saved_model
from pipelines.models.assemble import build_classifier, with_probabilities
from tests.images import variants

SIZE, CLASSES = 32, ["cat", "ça", "🐱 with\nnewline"]
FILES = variants()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    config = ModelConfig(weights="none")
    model = with_probabilities(build_classifier(config, image_size=SIZE, num_classes=3, seed=1))
    folder = tmp_path_factory.mktemp("saved") / "savedmodel"
    write_saved_model(folder, model, classes=CLASSES, image_size=SIZE, resize="crop")
    return model, folder


def test_it_gives_the_model_s_answers_in_a_fresh_process(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    decoder = ImageDecoder(image_size=SIZE, resize="crop")
    decoded = {name: decoder.decode(contents) for name, contents in FILES.items()}
    served = [name for name, (_, by_graph) in decoded.items() if by_graph]
    assert len(served) > 20
    expected = model.predict_on_batch(np.stack([decoded[name][0] for name in served]).astype(np.float32))
    with Probe() as probe:
        received, names = probe.ask(folder, [FILES[name] for name in served], scratch=tmp_path / "asked")
    assert names == CLASSES
    assert check_parity("it", expected, received) < 1e-5


def test_it_refuses_what_only_prepare_can_read(saved: tuple[Any, Path]) -> None:
    decoder = ImageDecoder(image_size=SIZE, resize="crop")
    refused = [name for name, contents in FILES.items() if not decoder.decode(contents)[1]]
    assert any(name.startswith("webp") for name in refused)
    serve = tf.saved_model.load(str(saved[1])).signatures["serving_default"]
    for name in refused:
        with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG, PNG, GIF"):
            serve(images=tf.constant([FILES[name]]))


def test_an_answer_has_every_output(saved: tuple[Any, Path]) -> None:
    serve = tf.saved_model.load(str(saved[1])).signatures["serving_default"]
    contents = next(iter(FILES.values()))
    answer = serve(images=tf.constant([contents, contents]))
    assert set(answer) == {"probabilities", "class_names", "predicted"}
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1, rtol=1e-5)
    best = int(answer["probabilities"].numpy()[0].argmax())
    assert answer["predicted"].numpy()[1].decode() == CLASSES[best]


def test_its_normalization_is_part_of_its_convolutions(saved: tuple[Any, Path]) -> None:
    loaded = tf.saved_model.load(str(saved[1]))
    head = [weight.shape for weight in saved[0].layers[-2].weights]
    assert sorted(weight.shape.as_list() for weight in loaded.weights) == sorted(map(list, head))


def test_the_probe_imports_nothing_but_tensorflow() -> None:
    tree = ast.parse(parity._PROBE.read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"gc", "json", "sys", "pathlib", "tensorflow"}


def test_a_model_that_does_not_load_is_said_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with Probe() as probe, pytest.raises(ParityError, match=r"does not run in a fresh process \(exit 1\)"):
        probe.ask(tmp_path / "broken", [b"x"], scratch=tmp_path / "asked")


def test_a_probe_that_nobody_asked_ends() -> None:
    with Probe() as probe:
        assert probe._process.poll() is None
    assert probe._process.poll() is not None


@pytest.mark.parametrize("received", [[[0.5, 0.4999]], [[np.nan, 0.5]], [[0.5]]])
def test_other_probabilities_are_refused(received: Any) -> None:
    expected = np.array([[0.5, 0.5002]], np.float32)
    with pytest.raises(ParityError):
        check_parity("it", expected, np.asarray(received, np.float32))
