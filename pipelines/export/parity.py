"""Proof that an exported model is the trained one: both are asked about the same stored images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ParityError

TOLERANCE = 1e-4  # of a probability; what the order of float32 sums changes is two orders below
_PROBE = Path(__file__).with_name("parity_probe.py")
_LOG_LINES_SHOWN = 15


def ask_saved_model(saved_model: Path, contents: Sequence[bytes], scratch: Path) -> tuple[NDArray[np.float32], list[str]]:
    """Probabilities float32 [n, classes] and class names that a SavedModel gives for files, in a fresh process.

    Raises:
        ParityError: it can't be loaded, or fails on one of the files; the last lines of its log are given.
    """
    scratch.mkdir()
    for number, content in enumerate(contents):
        (scratch / str(number)).write_bytes(content)
    command = [sys.executable, "-I", str(_PROBE), str(saved_model), str(scratch)]
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        log = "\n".join(finished.stderr.splitlines()[-_LOG_LINES_SHOWN:])
        raise ParityError(f"the exported SavedModel does not run in a fresh process (exit {finished.returncode}):\n{log}")
    answers = json.loads((scratch / "answers.json").read_bytes())
    return np.asarray(answers["probabilities"], np.float32), answers["class_names"]


def check_parity(name: str, expected: NDArray[np.float32], received: NDArray[np.float32]) -> float:
    """The largest absolute difference of a probability.

    Raises:
        ParityError: it exceeds `TOLERANCE`, or is not a number.
    """
    if expected.shape != received.shape:
        raise ParityError(f"{name} gives probabilities of shape {received.shape}, the trained model {expected.shape}")
    difference = float(np.abs(expected - received).max())
    if not difference <= TOLERANCE:
        raise ParityError(
            f"{name} differs from the trained model by {difference:.2g} in a probability; at most {TOLERANCE:g} is allowed"
        )
    return difference
