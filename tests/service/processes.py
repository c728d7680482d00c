"""Real processes for the tests of the service: a Prefect server and a worker, on loopback, with files of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from flows.surroundings import QUIET_PREFECT

REPOSITORY = Path(__file__).parents[2]
AUTH = "somebody:for-tests"
_DEADLINE_SECONDS = 120
_HOLDER = """
import socket, sys
socket.gethostname = lambda: sys.argv[1]  # a host of its own, whose limit nobody else uses
from tasks.slots import device_slot
with device_slot():
    print("held", flush=True)
    sys.stdin.read()
"""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def poll(what: str, look: Callable[[], Any], *, seconds: float = _DEADLINE_SECONDS, pause: float = 0.3) -> Any:
    """What `look` returns as soon as it is true; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(pause)
    return found


def stop(process: subprocess.Popen[Any], *, how: signal.Signals = signal.SIGTERM) -> None:
    """Ends a process, and its group where it leads one."""
    if process.poll() is None:
        target = os.killpg if os.getpgid(process.pid) == process.pid else os.kill
        target(process.pid, how)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            target(process.pid, signal.SIGKILL)
            process.wait()


class Server:
    """A `prefect server` process with basic authentication and CSRF protection on.

    Args:
        folder: for its files.
        database: URL of a database, or None for SQLite in `folder`.

    Attributes:
        url: of its API.
        environment: with which other processes are its clients.
    """

    def __init__(self, folder: Path, database: str | None) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[Any] | None = None
        self.url = f"http://127.0.0.1:{self._port}/api"
        others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        home = {"PREFECT_HOME": str(folder / "client"), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}
        connect = {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": AUTH, "PYTHONPATH": str(REPOSITORY)}
        often = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_HEARTBEAT_SECONDS": "2"}
        self.environment = {**others, **QUIET_PREFECT, **home, **connect, **often, "PREFECT_LOGGING_LEVEL": "WARNING"}
        self._own = {
            **self.environment,
            "PREFECT_HOME": str(folder / "server"),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self._port),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",
        }
        del self._own["PREFECT_API_URL"]
        if database is not None:
            self._own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        with (self._folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", "server", "start"]
            self._process = subprocess.Popen(
                command, env=self._own, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        poll("the server", self._answers)

    def stop(self) -> None:
        """Ends it as an operator would."""
        assert self._process is not None
        stop(self._process)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        stop(self._process, how=signal.SIGKILL)

    def restart(self) -> None:
        """Ends it and starts it again, on the same port, database and files."""
        self.stop()
        self.start()

    def run(self, *command: object) -> str:
        """Runs a command of Prefect as a client; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *map(str, command)],
            env=self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        try:
            with urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class Worker:
    """A `prefect worker` process of type process, with the runs that it starts.

    Args:
        server: whose client it is.
        pool: that it takes work from.
        folder: for its log.
        environment: besides that of the server's clients.
    """

    def __init__(self, server: Server, pool: str, folder: Path, **environment: str) -> None:
        self._log = folder / "worker.log"
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--install-policy", "never"]
            options: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen(command, env={**server.environment, **environment}, cwd=folder, **options)

    def stop(self) -> None:
        """Ends it, and its runs with it."""
        stop(self.process)

    def said(self) -> str:
        """Its log, and that of its runs."""
        return self._log.read_text()


def hold_slot(server: Server, host: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a process that has the slot of a host when this returns; its locks lie in `folder`."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**server.environment, "IMAGEMILL_SLOTS": str(folder)}
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, host], env=environment, **pipes)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder
