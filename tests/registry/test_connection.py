"""What the errors of MLflow and of the libraries below it become."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipelines.errors import InputError, RegistryUnreachableError, RunError
from pipelines.registry.connection import Registry, connected, registry_errors
from tests.registry.conftest import Desk

FAR = Registry(Path("home"), "https://me:secret@mlflow.example:5000/path")


def mlflow_error(code: int) -> Exception:
    from mlflow import MlflowException

    return MlflowException("no", error_code=code)


def test_a_server_in_trouble_is_away_and_one_that_refuses_is_not() -> None:
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED

    for code in (INTERNAL_ERROR, REQUEST_LIMIT_EXCEEDED):
        with pytest.raises(RegistryUnreachableError) as away, registry_errors(FAR):
            raise mlflow_error(code)
        assert str(away.value).startswith("the registry at https://mlflow.example:5000/path does not answer (no)")
    with pytest.raises(RunError, match="can't be used: no") as caught, registry_errors(FAR):
        raise mlflow_error(PERMISSION_DENIED)
    assert not isinstance(caught.value, RegistryUnreachableError)


def test_what_is_no_error_of_the_registry_s_passes_through() -> None:
    for error in (KeyError("ours"), InputError("said")):
        with pytest.raises(type(error)), registry_errors(FAR):
            raise error


def test_a_database_of_another_version_of_mlflow_keeps_the_run_waiting(trained: Desk) -> None:
    with sqlite3.connect(trained.registry.home / "mlflow" / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    database.close()
    assert trained.register(4).version is None
    assert "the home's registry can't be used: Detected out-of-date database schema" in trained.notes[0]


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"can't be used: .*pymysql"), connected(Registry(tmp_path, "mysql+pymysql:///x")):
        pass
