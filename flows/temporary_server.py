"""Prefect's server for one command, where none is configured: started before Prefect is imported, gone when the command is.

Prefect would start one too, but only once the client is imported and first used, and a kill -9 of the command would leave it
running (docs/decisions/0021-the-temporary-server.md).
"""

from __future__ import annotations

import atexit
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from pipelines.quick_imports import quick_imports
from tasks.spawn import python_command

_SECONDS_TO_LEAVE = 5.0


class TemporaryServer:
    """A server process on a free port of the loopback interface, which lives as long as this process does.

    Its database is in `PREFECT_HOME`, unless the environment says otherwise.
    """

    def __init__(self) -> None:
        self.made_anew = bring_template()
        # It listens from here on: whoever connects waits until the server has come up, or is told that it has not.
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            command = python_command("flows.temporary_server", "serve", str(listening.fileno()))
            # A session of its own, so that Ctrl-C does not reach it before the flow has told it of the end.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=2, pass_fds=[listening.fileno()], start_new_session=True
            )
        atexit.register(self.stop)  # after Prefect's own, which still talk to it

    def stop(self) -> None:
        """Ends the server, which writes down what it was told last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve() -> None:
    """Entry point of the server process, whose last argument is the file descriptor of the socket."""
    arrived = threading.Event()

    def leave_with_the_command() -> None:
        sys.stdin.buffer.read()
        if arrived.is_set():
            server.should_exit = True
            threading.Event().wait(_SECONDS_TO_LEAVE)
        os._exit(1)

    threading.Thread(target=leave_with_the_command, daemon=True).start()
    from functools import partial

    with quick_imports():
        import uvicorn
        from prefect.server.api.server import create_app

    app = partial(create_app, ephemeral=True, final=True)  # as Prefect's own temporary server
    server = uvicorn.Server(uvicorn.Config(app, factory=True, log_level="error", lifespan="on"))
    arrived.set()
    server.run(sockets=[socket.socket(fileno=int(sys.argv[-1]))])


def bring_template(environment: Mapping[str, str] = os.environ) -> bool:
    """Puts a database with the tables of this version of Prefect where a new home has none: making them takes seconds.

    Returns:
        Whether the server will make a new database because there is no template: what it makes may be kept as one.
    """
    database = _database(environment)
    if database is None or database.exists():
        return False
    if not _template().is_file():
        return True
    # A file system without hard links is left to make its own.
    with TemporaryDirectory(dir=database.parent) as folder, suppress(OSError):
        copyfile(_template(), Path(folder, "new.db"))
        database.hardlink_to(Path(folder, "new.db"))  # never over one that another command has put there meanwhile
    return False


def keep_template(environment: Mapping[str, str] = os.environ) -> None:
    """Keeps a database that a server has just made, for homes to come; to be called before anything is stored in it."""
    database, template = _database(environment), _template()
    if database is None or template.exists():
        return
    with suppress(OSError):  # a cache that can't be written
        template.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=template.parent) as folder:
            copy = Path(folder, "new.db")
            with closing(sqlite3.connect(database)) as made, closing(sqlite3.connect(copy)) as kept:
                made.backup(kept)
            copy.replace(template)


def _template() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("imagemill") / f"prefect-{version('prefect')}.db"


def _database(environment: Mapping[str, str]) -> Path | None:
    """Where Prefect's SQLite database lies; None where the user has said so."""
    if "PREFECT_API_DATABASE_CONNECTION_URL" in environment or "PREFECT_SERVER_DATABASE_CONNECTION_URL" in environment:
        return None
    return Path(environment["PREFECT_HOME"], "prefect.db")
