"""The server of these tests: on PostgreSQL where the machine has it, closed to strangers and to forged requests."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.service.processes import AUTH, Server

pytestmark = pytest.mark.slow


def test_what_it_knows_lies_in_postgresql(server: Server, database: str | None) -> None:
    if database is None:
        pytest.skip("there is no PostgreSQL on this machine (apt-get install postgresql)")
    import asyncpg  # comes with Prefect

    server.run("work-pool", "create", "kept", "--type", "process")

    async def read_names() -> list[str]:
        connection = await asyncpg.connect(database.replace("+asyncpg", ""))
        try:
            return [row["name"] for row in await connection.fetch("select name from work_pool")]
        finally:
            await connection.close()

    assert "kept" in asyncio.run(read_names())


def test_it_answers_nobody_without_credentials_and_changes_nothing_without_a_token(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/admin/version").status_code == 401
        assert client.get("/admin/version", auth=("somebody", "guessed")).status_code == 401
        user, password = AUTH.split(":")
        assert client.get("/admin/version", auth=(user, password)).status_code == 200
        forged = client.post("/work_pools/filter", json={}, auth=(user, password))
    assert (forged.status_code, "CSRF" in forged.text) == (403, True)
