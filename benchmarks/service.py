"""What a run costs around its stages, and how fast the service reacts.

Interleaved, medians of five. `seconds_cached_without_server`: all stages are cache hits, and the command starts a server of its
own; `seconds_cached_with_server`: the same on a server that runs. `seconds_child` and `seconds_in_process`: training on a few
images, with the heavy stages in the child process and in the command's own; `child_overhead` is the difference.
`seconds_arrival_to_retraining`: from a new file in a watched folder to the start of the retraining, with `seconds_settle` and
`seconds_watch_interval` between looks. `seconds_flow_killed_to_device`, `..._child_gone` and `..._slot`: from kill -9 of the
flow in the middle of training until the host's device, the child's process and the slot on the server are free;
`seconds_child_killed_to_...`: from the second kill of a child, which ends the run (after the first one it is started again).

    python -m benchmarks.service --json benchmarks/results/service.json
    python -m benchmarks.service --only arrival kill --json benchmarks/results/service.json    # other figures there stay
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from benchmarks.prefect_server import running_server
from benchmarks.results import write_results
from benchmarks.service_reactions import measure_reactions

_RUN = """
import sys
from contextlib import nullcontext
from flows.cli import main
from tasks.worker import InProcess, use_worker
with use_worker(InProcess()) if sys.argv.pop(1) == "in process" else nullcontext():
    main()
"""
_SETTINGS = (
    "image_size=32",
    "batch_size=8",
    "model.weights=none",
    "head.epochs=2",
    "fine_tune.epochs=2",
    "registry.enabled=false",
)
_COMMAND_PARTS, _REACTIONS = ("cached", "child"), ("arrival", "kill")


def time_train(source: Path, home: Path, *, where: str = "child", environment: Mapping[str, str] | None = None) -> float:
    """Seconds that `imagemill train` takes, with its heavy stages in a child or in the command's process."""
    command = [sys.executable, "-c", _RUN, where, "train", str(source), "--home", str(home), "--out", str(home / "run")]
    command += [part for setting in _SETTINGS for part in ("--set", setting)]
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**others, **(environment or {})})
    return time.monotonic() - started


def measure(folder: Path, source: Path, *, repeats: int, parts: Collection[str]) -> dict[str, float]:
    """The figures of the parts `cached` and `child`, from interleaved runs."""
    seconds: dict[str, list[float]] = {}
    with running_server(folder / "server") as url:
        cached, server = folder / "cached", {"PREFECT_API_URL": url}
        time_train(source, cached)  # makes the records, and the template of Prefect's database
        time_train(source, cached, environment=server)  # makes the flow known to the server
        for number in range(repeats):
            for where in ("child", "in process") if "child" in parts else ():
                home = folder / f"{where} {number}"
                seconds.setdefault(where, []).append(time_train(source, home, where=where, environment=server))
                shutil.rmtree(home)
            if "cached" in parts:
                seconds.setdefault("without", []).append(time_train(source, cached))
                seconds.setdefault("with", []).append(time_train(source, cached, environment=server))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    figures = {"seconds_cached_without_server": "without", "seconds_cached_with_server": "with"}
    figures |= {"seconds_child": "child", "seconds_in_process": "in process"}
    medians = {name: found[kind] for name, kind in figures.items() if kind in found}
    return medians | ({"child_overhead": found["child"] - found["in process"]} if "child" in found else {})


def write_source(folder: Path) -> Path:
    """Twenty of scikit-learn's digits of each class."""
    from pipelines.demo import write_digits

    write_digits(folder)
    for path in [path for label in folder.iterdir() for path in sorted(label.iterdir())[20:]]:
        path.unlink()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*_COMMAND_PARTS, *_REACTIONS], default=[*_COMMAND_PARTS, *_REACTIONS])
    parser.add_argument("--json", type=Path, help="figures of other parts that it holds stay")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    if arguments.json is not None and arguments.json.exists():
        figures = json.loads(arguments.json.read_text(encoding="utf-8"))["figures"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_source(folder / "digits")
        if set(_COMMAND_PARTS) & set(arguments.only):
            figures |= measure(folder, source, repeats=arguments.repeats, parts=arguments.only)
        if set(_REACTIONS) & set(arguments.only):
            figures |= measure_reactions(folder / "reactions", source, repeats=arguments.repeats, parts=arguments.only)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
