"""Models by name: whole, unaltered, or a line that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import InputError, RunError
from pipelines.registry.connection import Registry
from pipelines.registry.fetch import fetch, parse_reference
from tests.registry.conftest import Desk


@pytest.mark.parametrize("text", ["models:/pets@champion", "models:/pets@challenger", "models:/pets/3"])
def test_an_alias_and_a_version_name_a_run_folder(trained: Desk, text: str) -> None:
    folder = fetch(trained.registry, parse_reference(text))
    assert (folder / "model.keras").read_text() == "model 3"
    assert (folder / "export" / "savedmodel" / "saved_model.pb").exists()


def test_mlflow_s_own_loaders_find_the_model_and_do_not_spoil_it(trained: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.registry.client_uri)
    folder = fetch(trained.registry, parse_reference("models:/pets@champion"))  # a moved home is put right when it is opened
    path = download_artifacts("models:/pets@champion")
    assert (Path(path) / "registered_model_meta").exists()  # written by MLflow
    assert Model.load(path).flavors["keras"]["data"] == "model"  # and MLflow adds .keras
    assert fetch(trained.registry, parse_reference("models:/pets@champion")) == folder == Path(path)


def test_what_was_altered_is_not_handed_out(trained: Desk) -> None:
    folder = fetch(trained.registry, parse_reference("models:/pets/1"))
    (folder / "model.keras").write_text("model 666")
    with pytest.raises(RunError, match="version 1 of `pets` is gone or altered"):
        fetch(trained.registry, parse_reference("models:/pets/1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models:/cats@champion", "the registry has no model 'cats'; it has 'pets'"),
        ("models:/pets/9", "`pets` has no version 9; it has 1, 2, 3"),
        ("models:/pets@best", "`pets` has no alias 'best'; it has challenger, champion"),
        ("models:/pets", "`MODEL` of a registry is models:/NAME@ALIAS or models:/NAME/VERSION; received 'models:/pets'"),
        ("models:/pets/latest", "received 'models:/pets/latest'"),
    ],
)
def test_what_is_not_there_is_refused(trained: Desk, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(trained.registry, parse_reference(text))


def test_a_home_without_a_registry_stays_without_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model was registered in"):
        fetch(Registry(tmp_path / "home"), parse_reference("models:/pets/1"))
    assert not (tmp_path / "home").exists()
