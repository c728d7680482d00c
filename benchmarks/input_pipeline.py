"""Images per second of imagemill's input pipeline and of the others that a Keras user could take, on the same photos.

Each contestant is a process of its own that lives through the whole benchmark; only one works at a time, in turns, and the
medians over the rounds are given. All run on two cores.

    python -m benchmarks.input_pipeline ../shared/data/cats-dogs.tar --json benchmarks/results/input_pipeline.json

google/grain and PyTorch are behind an extra and left out where they are missing. On Linux `pip install '.[peers]'` brings
PyTorch's CUDA libraries of several gigabytes; a CPU build in an environment of its own does as well (1 GB). Where pip finds
one under the plain name, as on this project's machines, that takes

    python -m venv peers && peers/bin/pip install grain pillow torch==2.13.0
    python -m benchmarks.input_pipeline PHOTOS --peers-python peers/bin/python

Of the settings with and without worker processes, a ratio takes the peer's better one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.contestants import CONTESTANTS, OPTIONAL, Settings
from benchmarks.results import write_results
from benchmarks.source import unpack_classes

CORES = 2
# Name of the figure -> who is measured, and against whom: the best of them counts.
RATIOS = {
    "warm_plain_ratio": ("imagemill_plain", ["keras"]),
    "warm_plain_float32_ratio": ("imagemill_plain_float32", ["keras"]),
    "warm_affine_ratio": ("imagemill_affine", ["keras_affine"]),
    "warm_affine_over_torch_ratio": ("imagemill_affine", ["torch_affine_workers0", "torch_affine_workers2"]),
    "warm_five_ratio": ("imagemill_five", ["keras_five"]),
    "first_epoch_ratio": ("imagemill_first_epoch", ["keras"]),
}

Medians = Mapping[str, Mapping[str, float]]


class Contestant:
    """A running process of `benchmarks.contestants`.

    Attributes:
        skipped: why it can't take part, or None.
    """

    def __init__(self, name: str, settings: Settings, *, python: str, errors: IO[bytes]) -> None:
        self._name = name
        self._errors = errors
        command = [python, "-m", "benchmarks.contestants", name, json.dumps(asdict(settings))]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        self._process = subprocess.Popen(command, env=environment, text=True, bufsize=1, **pipes)
        self.skipped: str | None = self._answer().get("skipped")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)  # so that it ends its own worker processes
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def measure(self, seconds: float) -> dict[str, float]:
        """One measurement of at least so many seconds."""
        self._process.stdin.write(f"{seconds}\n")
        figures: dict[str, float] = self._answer()
        return figures

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{self._name} ended:\n{self._errors.read().decode(errors='replace')[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run_rounds(names: Sequence[str], settings: Settings, *, rounds: int, seconds: float, peers_python: str) -> Medians:
    """Starts the contestants one after the other, lets them take turns, and returns each figure's median."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        taking_part: dict[str, Contestant] = {}
        for name in names:
            python = peers_python if name.startswith(OPTIONAL) else sys.executable
            errors = stack.enter_context(tempfile.TemporaryFile())
            contestant = stack.enter_context(Contestant(name, settings, python=python, errors=errors))
            print(f"{name} is {f'left out: {contestant.skipped}' if contestant.skipped else 'ready'}", flush=True)
            if not contestant.skipped:
                taking_part[name] = contestant
        for number in range(rounds):
            for name, contestant in taking_part.items():
                figures = contestant.measure(seconds)
                print(f"round {number + 1}: {name} {' '.join(f'{value:.4g}' for value in figures.values())}", flush=True)
                for figure, value in figures.items():
                    seen[name][figure].append(value)
    return {name: {figure: statistics.median(values) for figure, values in rows.items()} for name, rows in seen.items()}


def compare(medians: Medians) -> dict[str, float]:
    """The figures: each ratio whose two sides took part, then what every contestant gave."""
    figures: dict[str, float] = {}
    for name, (ours, others) in RATIOS.items():
        rates = [medians[other]["images_per_second"] for other in others if other in medians]
        if rates and ours in medians:
            figures[name] = medians[ours]["images_per_second"] / max(rates)
    if resume := medians.get("imagemill_resume"):
        figures["resume_ratio"] = resume["seconds_to_step_100000"] / resume["seconds_to_step_10"]
    if draw := medians.get("imagemill_draw"):
        figures["draw_over_warp_ratio"] = draw["milliseconds_draw"] / draw["milliseconds_warp"]
    for contestant, rows in medians.items():
        figures |= {f"{contestant}_{figure}": value for figure, value in rows.items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="ARCHIVE_OR_CLASS_FOLDERS")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement at least; it ends with a whole pass")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="CONTESTANT")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has grain and torch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpack_classes(arguments.photos, Path(scratch, "photos")).resolve()
        home = Path(scratch, "home")
        home.mkdir()
        settings = Settings(folder=str(folder), home=str(home), size=arguments.size, batch=arguments.batch)
        medians = run_rounds(
            arguments.only,
            settings,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            peers_python=arguments.peers_python,
        )
    write_results(compare(medians), arguments.json)


if __name__ == "__main__":
    main()
