"""The server of a single command: when it is needed, and where its database comes from."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flows import temporary_server
from flows.surroundings import has_server
from flows.temporary_server import bring_template, keep_template


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Makes a home with an empty cache of the user, and returns the environment of a command there."""
    monkeypatch.setattr(temporary_server, "_template", lambda: tmp_path / "cache" / "prefect.db")

    def make(name: str) -> dict[str, str]:
        (tmp_path / name).mkdir()
        return {"PREFECT_HOME": str(tmp_path / name)}

    return make


def write_database(environment: dict[str, str], content: str) -> None:
    with closing(sqlite3.connect(Path(environment["PREFECT_HOME"], "prefect.db"))) as database, database:
        database.execute("create table said (what text)")
        database.execute("insert into said values (?)", [content])


def read_database(environment: dict[str, str]) -> str:
    with closing(sqlite3.connect(Path(environment["PREFECT_HOME"], "prefect.db"))) as database:
        return str(database.execute("select what from said").fetchone()[0])


def test_a_new_home_gets_the_tables_that_an_earlier_one_had_to_make(home: Callable[[str], dict[str, str]]) -> None:
    first = home("first")
    assert bring_template(first)
    write_database(first, "tables")
    keep_template(first)
    second = home("second")
    assert not bring_template(second)
    assert read_database(second) == "tables"
    write_second = Path(second["PREFECT_HOME"], "prefect.db")
    with closing(sqlite3.connect(write_second)) as database, database:
        database.execute("update said set what = 'changed'")
    third = home("third")
    bring_template(third)
    assert read_database(third) == "tables"
    assert [path.name for path in Path(third["PREFECT_HOME"]).iterdir()] == ["prefect.db"]


def test_a_database_that_is_there_stays(home: Callable[[str], dict[str, str]]) -> None:
    first, old = home("first"), home("old")
    bring_template(first)
    write_database(first, "tables")
    keep_template(first)
    write_database(old, "runs")
    assert not bring_template(old)
    assert read_database(old) == "runs"
    keep_template(old)
    new = home("new")
    bring_template(new)
    assert read_database(new) == "tables"


def test_a_database_of_the_users_own_is_left_alone(home: Callable[[str], dict[str, str]]) -> None:
    environment = {**home("home"), "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////elsewhere.db"}
    assert not bring_template(environment)
    keep_template(environment)
    assert bring_template(home("other"))  # still no template


@pytest.mark.parametrize(
    ("name", "content", "configured"),
    [
        ("prefect.toml", 'api.url = "http://127.0.0.1:1/api"', True),
        ("pyproject.toml", '[tool.prefect]\napi.url = "http://127.0.0.1:1/api"', True),
        ("pyproject.toml", 'dependencies = ["prefect"]', False),
        (".env", "PREFECT_API_URL=http://127.0.0.1:1/api", True),
        (".env", "OTHER=1", False),
    ],
)
def test_files_that_name_a_server_are_heard(
    name: str, content: str, configured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(content)
    if not configured:  # Prefect need not even be imported
        monkeypatch.chdir(tmp_path)
        assert not has_server({"PREFECT_PROFILES_PATH": "none"})
        return
    code = "from flows.surroundings import has_server; print(has_server())"
    environment = {**os.environ, "PREFECT_PROFILES_PATH": "none"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert answer.stdout == "True\n"
