"""A real MLflow server on loopback, for tests: started, killed, started again, or hanging."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


class MlflowServer:
    """`mlflow server` on loopback, as a person starts it, without the jobs that language models want."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 180) -> None:
        """Starts it and waits until it answers."""
        places = {"backend-store-uri": f"sqlite:///{self._folder}/server.db", "artifacts-destination": f"{self._folder}/files"}
        options = {**places, "host": "127.0.0.1", "port": str(self._port), "workers": "1"}
        command = [str(Path(sys.executable).with_name("mlflow")), "server"]
        command += [word for name, value in options.items() for word in (f"--{name}", value)]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(f"{self.uri}/health", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        self.kill()
        pytest.fail((self._folder / "server.log").read_text())

    def kill(self) -> None:
        """Ends it and all that it started, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Lets it accept connections in the block, and answer nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("pipelines.registry.connection.ANSWER_SECONDS", 0.5)
            yield
        os.killpg(self._process.pid, signal.SIGCONT)
