"""A real PostgreSQL server for tests, where the machine has one installed (Debian: `apt-get install postgresql`)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.service.processes import free_port, stop

_PROGRAMS = ("initdb", "postgres", "pg_isready")
_DEADLINE_SECONDS = 60


def find_postgres() -> Path | None:
    """The folder of its programs, the newest version's, or None."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*debian, *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in folders if all((folder / name).exists() for name in _PROGRAMS)), None)


@contextmanager
def running_postgres(binaries: Path) -> Iterator[str]:
    """Starts an empty database on loopback; yields its URL for SQLAlchemy with asyncpg."""
    as_user: dict[str, Any] = {}
    # Not below pytest's folder, which another user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="imagemill-postgres-"))
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        as_user = {"user": "postgres" if "postgres" in names else "nobody"}
        os.chown(folder, pwd.getpwnam(as_user["user"]).pw_uid, -1)
    data, port, password = folder / "data", free_port(), folder / "password"
    password.write_text("for-tests")
    password.chmod(0o644)
    command = [binaries / "initdb", "--pgdata", data, "--username=prefect", f"--pwfile={password}", "--auth=scram-sha-256"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **as_user}
    subprocess.run([*command, "--no-sync", "--encoding=UTF8", "--locale=C"], check=True, **quiet)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", f"port={port}", "-k", folder]
    server = subprocess.Popen([binaries / "postgres", "-D", data, *options], **quiet)
    try:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        ready = [binaries / "pg_isready", "--host=127.0.0.1", f"--port={port}"]
        while subprocess.run(ready, check=False, **quiet).returncode:
            assert server.poll() is None, "PostgreSQL ended"
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
        yield f"postgresql+asyncpg://prefect:for-tests@127.0.0.1:{port}/postgres"
    finally:
        stop(server)
        with suppress(OSError):
            shutil.rmtree(folder)
