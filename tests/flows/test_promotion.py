"""What the flows do where the registry can't be used; `test_retrain.py` has whole runs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from flows.promotion import find_champion
from pipelines.config import Recipe
from pipelines.errors import RunError
from pipelines.registry.connection import Registry
from tests.registry.conftest import Desk


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one champion of the data set `pets`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = tmp_path / "made"
    Desk(Registry(made), []).train(1)
    return made.rename(tmp_path / "home")  # MLflow keeps what it knows of an address for the life of a process


def test_a_registry_that_refuses_has_no_champion_to_begin_with(home: Path) -> None:
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    database.close()
    assert find_champion(Recipe(), home=home, dataset="pets") is None


def test_a_champion_whose_files_are_gone_is_an_error(home: Path) -> None:
    champion = find_champion(Recipe(), home=home, dataset="pets")
    assert champion is not None
    shutil.rmtree(champion)
    with pytest.raises(RunError, match="is gone or altered"):
        find_champion(Recipe(), home=home, dataset="pets")
