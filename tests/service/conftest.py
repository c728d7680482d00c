"""One real Prefect server for all tests of the service, on PostgreSQL where the machine has it; and one worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.service.postgres import find_postgres, running_postgres
from tests.service.processes import AUTH, Server, Worker, hold_slot


@pytest.fixture(scope="session")
def database() -> Iterator[str | None]:
    """URL of a real PostgreSQL, or None."""
    binaries = find_postgres()
    with ExitStack() as stack:
        yield None if binaries is None else stack.enter_context(running_postgres(binaries))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, database: str | None) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), database)
    try:
        running.start()
        # A slot whose holder is killed with -9 at once: by the time that test_slots.py looks, its lease has run out.
        running.run("global-concurrency-limit", "create", "cpu-doomed", "--limit", 1)
        with hold_slot(running, "doomed", tmp_path_factory.mktemp("doomed")) as holder:
            holder.kill()
        yield running
    finally:
        running.stop()


@pytest.fixture
def configured(server: Server) -> Iterator[Server]:
    """The server, configured in this process too."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: AUTH}):
        yield server


@pytest.fixture(scope="session")
def worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker on the pool `imagemill`, which is made."""
    server.run("work-pool", "create", "imagemill", "--type", "process")
    started = Worker(server, "imagemill", tmp_path_factory.mktemp("worker"))
    yield started
    started.stop()
