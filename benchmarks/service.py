"""What a run costs around its stages: a cached run with and without a running Prefect server, and the child process.

Interleaved, medians of five. `seconds_cached_without_server`: all stages are cache hits, and the command starts a server of its
own; `seconds_cached_with_server`: the same on a server that runs. `seconds_child` and `seconds_in_process`: training on a few
images, with the heavy stages in the child process and in the command's own; `child_overhead` is the difference.

    python -m benchmarks.service --json benchmarks/results/service.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.results import write_results

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
_START_SECONDS = 120.0


def time_train(source: Path, home: Path, *, where: str = "child", environment: Mapping[str, str] | None = None) -> float:
    """Seconds that `imagemill train` takes, with its heavy stages in a child or in the command's process."""
    command = [sys.executable, "-c", _RUN, where, "train", str(source), "--home", str(home), "--out", str(home / "run")]
    command += [part for setting in _SETTINGS for part in ("--set", setting)]
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**others, **(environment or {})})
    return time.monotonic() - started


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """A Prefect server on SQLite; gives the address of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL"}
    command = [sys.executable, "-m", "prefect", "server", "start"]
    with subprocess.Popen(command, env={**os.environ, **own, **quiet}, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the Prefect server did not start")
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def measure(folder: Path, *, repeats: int) -> dict[str, float]:
    """All figures, from interleaved runs on scikit-learn's digits."""
    from pipelines.demo import write_digits

    source = folder / "digits"
    write_digits(source)
    for path in [path for label in source.iterdir() for path in sorted(label.iterdir())[20:]]:
        path.unlink()
    seconds: dict[str, list[float]] = {}
    with running_server(folder / "server") as url:
        cached, server = folder / "cached", {"PREFECT_API_URL": url}
        time_train(source, cached)  # makes the records, and the template of Prefect's database
        time_train(source, cached, environment=server)  # makes the flow known to the server
        for number in range(repeats):
            for where in ("child", "in process"):
                home = folder / f"{where} {number}"
                seconds.setdefault(where, []).append(time_train(source, home, where=where, environment=server))
                shutil.rmtree(home)
            seconds.setdefault("without", []).append(time_train(source, cached))
            seconds.setdefault("with", []).append(time_train(source, cached, environment=server))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds_cached_without_server": found["without"],
        "seconds_cached_with_server": found["with"],
        "seconds_child": found["child"],
        "seconds_in_process": found["in process"],
        "child_overhead": found["child"] - found["in process"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_results(measure(Path(folder), repeats=arguments.repeats), arguments.json)


if __name__ == "__main__":
    main()
