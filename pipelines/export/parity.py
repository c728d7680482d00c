"""Proof that an exported model is the trained one: both are asked about the same stored images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ParityError

TOLERANCE = 1e-4  # of a probability; what the order of float32 sums changes is two orders below
_PROBE = Path(__file__).with_name("parity_probe.py")
_LOG_LINES_SHOWN = 15


class Probe:
    """A fresh process that imports TensorFlow while the SavedModel is still being written, to be asked about it then.

    It has TensorFlow's own settings, not those of this process. To be used as a context, which ends it.
    """

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_PROBE)], stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, env=environment
        )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, asked or not."""
        self._process.kill()
        self._process.communicate()

    def ask(self, saved_model: Path, contents: Sequence[bytes], *, scratch: Path) -> tuple[NDArray[np.float32], list[str]]:
        """Probabilities float32 [n, classes] and class names that a SavedModel gives for files; once only.

        Args:
            saved_model: its folder.
            contents: of the files.
            scratch: a folder to make, for the files that are asked about.

        Raises:
            ParityError: it can't be loaded, or fails on one of the files; the last lines of its log are given.
        """
        scratch.mkdir()
        for number, content in enumerate(contents):
            (scratch / str(number)).write_bytes(content)
        _, log = self._process.communicate(json.dumps([str(saved_model), str(scratch)]) + "\n")
        if self._process.returncode != 0:
            shown = "\n".join(log.splitlines()[-_LOG_LINES_SHOWN:])
            raise ParityError(
                f"the exported SavedModel does not run in a fresh process (exit {self._process.returncode}):\n{shown}"
            )
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
