"""The registry that needs no server: MLflow's SQLite database and artifacts, in the home."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from pipelines.errors import RunError
from pipelines.store.artifacts import file_in_place

# Where MLflow 3.17 keeps absolute addresses of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def embedded_folder(home: Path) -> Path:
    """Holds the database and the artifacts."""
    return home.absolute() / "mlflow"


def embedded_database(home: Path) -> Path:
    """The database's file."""
    return embedded_folder(home) / "mlflow.db"


def embedded_uri(home: Path) -> str:
    """The database's address in SQLAlchemy's notation, which knows no escapes (and MLflow's own makes a folder of them).

    Raises:
        RunError: the home's path has a question mark, which no such address can have.
    """
    path = str(embedded_database(home))
    if "?" in path:
        raise RunError(f"a registry can't lie in a home with a question mark in its path; received {str(home)!r}")
    return f"sqlite:///{path}"


def artifacts_uri(home: Path) -> str:
    """The address of the folder that artifacts lie in."""
    return (embedded_folder(home) / "artifacts").as_uri()


def open_embedded(home: Path) -> str:
    """The database's address, its folder made; a home that was moved since has its artifacts' addresses put right.

    MLflow keeps those addresses absolute: it would look for models in the old place, and write new ones there.
    """
    uri, folder = embedded_uri(home), embedded_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    place, now = folder / "place", artifacts_uri(home)
    with FileLock(folder / "place.lock"):
        before = place.read_text(encoding="utf-8") if place.exists() else None
        if before != now:
            if before is not None:
                _move_addresses(embedded_database(home), before, now)
            with file_in_place(place) as temporary:
                temporary.write_text(now, encoding="utf-8")
    return uri


def _move_addresses(database: Path, before: str, now: str) -> None:
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:  # one transaction
        for table, column in _ADDRESSES:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (now, len(before) + 1, len(before), before),
            )
