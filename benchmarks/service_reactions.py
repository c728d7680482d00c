"""How fast the service reacts: from a new file to the start of a retraining, and from a kill -9 to a free slot.

Part of `benchmarks.service`. A server on SQLite, slots made by `imagemill setup`, a worker, and scikit-learn's digits.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from benchmarks.prefect_server import running_server

COMMAND = Path(sys.executable).with_name("imagemill")
SETTLE_SECONDS, INTERVAL_SECONDS = 5, 10  # deployments/prefect.yaml has 120 and 60
_RECIPE: dict[str, Any] = {
    "name": "digits",
    "image_size": 32,
    "batch_size": 8,
    "checkpoint_every_steps": 20,
    "model": {"backbone": "SmallCNN", "blocks": {"widths": [4], "depths": [1]}},
    "gate": {"least_images": 1},
}
_DEADLINE_SECONDS = 300.0
_SECONDS_TO_LEAVE = 30.0


def measure_reactions(folder: Path, source: Path, *, repeats: int, parts: Collection[str]) -> dict[str, float]:
    """The figures of the parts `arrival` and `kill`, medians.

    Args:
        folder: a new one, for all files.
        source: class folders; they are copied.
        repeats: of each.
        parts: which of the two.
    """
    folder.mkdir()
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    slots = {"IMAGEMILL_SLOTS": str(folder / "slots"), "PREFECT_HOME": str(folder / "client"), "DO_NOT_TRACK": "1"}
    with running_server(folder / "server") as url:
        environment = {**others, **slots, "PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "5"}
        subprocess.run([COMMAND, "setup"], env=environment, check=True, stdout=subprocess.DEVNULL)
        os.environ.update({name: environment[name] for name in (*slots, "PREFECT_API_URL")})  # of the client in this process
        figures: dict[str, float] = {}
        if "kill" in parts:
            figures |= _time_kills(folder, source, environment, repeats=repeats)
        if "arrival" in parts:
            figures |= _time_arrivals(folder, source, environment, repeats=repeats)
    return figures


def _time_arrivals(folder: Path, source: Path, environment: Mapping[str, str], *, repeats: int) -> dict[str, float]:
    """From the arrival of a file to the start of the retraining that it causes.

    Between them lie the rest of the watch's interval, a second look that finds the content as it was for `settle_seconds`, the
    event and the start of a process. Rounds are apart by what the retraining before took, so that they begin anywhere in an
    interval.
    """
    photos = Path(shutil.copytree(source, folder / "photos"))
    home = folder / "home"
    home.mkdir()
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": _deployments(photos, home)}))
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", folder / "prefect.yaml"]
    subprocess.run(deploy, env=environment, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "imagemill", "--install-policy", "never"]
    images = sorted(path for path in photos.rglob("*") if path.is_file())
    seconds: list[float] = []
    with _process(command, environment, cwd=home):
        _await_retraining(seen=set())  # of the content as it is
        for number in range(repeats):
            seen = set(_retrainings())
            arrived = time.time()
            shutil.copyfile(images[number], images[number].with_stem(f"new {number}"))
            seconds.append(_await_retraining(seen=seen) - arrived)
    return {
        "seconds_arrival_to_retraining": statistics.median(seconds),
        "seconds_settle": SETTLE_SECONDS,
        "seconds_watch_interval": INTERVAL_SECONDS,
    }


def _deployments(photos: Path, home: Path) -> list[dict[str, Any]]:
    """Watch and retrain as in deployments/prefect.yaml, but for their times and the recipe."""
    common = {"name": "digits", "pull": [], "work_pool": {"name": "imagemill"}}
    common["concurrency_limit"] = {"limit": 1, "collision_strategy": "ENQUEUE"}
    place = {"source": str(photos), "home": str(home)}
    trigger = {
        "match": {"prefect.resource.id": "dataset.digits"},
        "expect": ["dataset.changed"],
        "parameters": {"source": "{{ event.payload.source }}", "digest": "{{ event.payload.digest }}"},
    }
    watched = {**place, "dataset": "digits", "settle_seconds": SETTLE_SECONDS}
    recipe = {**_RECIPE, "fine_tune": {"epochs": 1}}
    return [
        {**common, "entrypoint": "flows.watch.watch", "parameters": watched, "schedules": [{"interval": INTERVAL_SECONDS}]},
        {**common, "entrypoint": "flows.retrain.retrain", "parameters": {**place, "recipe": recipe}, "triggers": [trigger]},
    ]


def _retrainings() -> dict[UUID, Any]:
    """All runs of the flow `retrain`."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])))
    return {run.id: run for run in runs}


def _await_retraining(*, seen: set[UUID]) -> float:
    """Waits for the end of a retraining that is not one of these; returns when it began, in seconds since 1970."""

    def ended() -> Any:
        return next((run for key, run in _retrainings().items() if key not in seen and run.state.is_final()), None)

    run = _poll("a retraining", ended, pause=1)
    if run.state_name != "Completed":
        raise RuntimeError(f"the retraining ended as {run.state_name}: {run.state.message}")
    return float(run.start_time.timestamp())


def _time_kills(folder: Path, source: Path, environment: Mapping[str, str], *, repeats: int) -> dict[str, float]:
    """From a kill -9 in the middle of training to the free device on the host, and to the free slot on the server.

    A killed flow's slot comes back when its lease has run out. A killed child is started again in the slot; killed once more it
    ends the run, which lets go.
    """
    from prefect.client.orchestration import get_client

    from tasks.devices import find_devices, taken_devices

    devices, found = find_devices(), dict[str, list[float]]()

    def active() -> int:
        with get_client(sync_client=True) as client:
            return int(client.read_global_concurrency_limit_by_name(devices.limit).active_slots)

    for number in range(repeats):
        for victim in ("flow", "child"):
            home = folder / f"{victim} {number}"
            command = [COMMAND, "train", source, "--home", home, "--out", home / "run", "--config", _recipe_file(folder)]
            with _process(command, environment) as run:
                child = _await_training(run, home)
                if victim == "child":
                    os.kill(child, signal.SIGKILL)
                    child = _await_training(run, home, other_than=child)
                killed = time.monotonic()
                os.kill(child if victim == "child" else run.pid, signal.SIGKILL)
                _poll("the device", lambda: not taken_devices(devices), pause=0.05)
                found.setdefault(f"seconds_{victim}_killed_to_device", []).append(time.monotonic() - killed)
                _poll("the child's end", lambda pid=child: not Path(f"/proc/{pid}/cwd").exists(), pause=0.05)
                found.setdefault(f"seconds_{victim}_killed_to_child_gone", []).append(time.monotonic() - killed)
                _poll("the slot", lambda: not active(), pause=0.2)
                found.setdefault(f"seconds_{victim}_killed_to_slot", []).append(time.monotonic() - killed)
            shutil.rmtree(home)
    del found["seconds_child_killed_to_child_gone"]
    return {name: statistics.median(values) for name, values in found.items()}


def _recipe_file(folder: Path) -> Path:
    path = folder / "long.yaml"
    long = {"fine_tune": {"epochs": 10_000, "patience": 10_000}, "registry": {"enabled": False}}
    path.write_text(yaml.safe_dump({**_RECIPE, **long}))
    return path


def _await_training(run: subprocess.Popen[bytes], home: Path, *, other_than: int | None = None) -> int:
    """Waits until a run's child has saved a checkpoint; returns the child."""
    before = {path.name for path in home.glob("checkpoints/*/*.npz")}

    def child() -> int | None:
        for pid in map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()):
            if pid != other_than and b"tasks.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid if {path.name for path in home.glob("checkpoints/*/*.npz")} - before else None
        return None

    return int(_poll("training", child, pause=0.1))


@contextmanager
def _process(command: list[Any], environment: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(part) for part in command], env=environment, **quiet, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_LEAVE)
            except subprocess.TimeoutExpired:  # a worker may wait for runs that nobody needs any more
                process.kill()


def _poll(what: str, look: Callable[[], Any], *, pause: float) -> Any:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_DEADLINE_SECONDS:g} s for {what}")
        time.sleep(pause)
    return found
