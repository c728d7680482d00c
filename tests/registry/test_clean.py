"""Versions that nobody goes back to are removed, whole: champions that a rollback needs are not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.registry.clean import CLEANED_TAG, clean_registry
from pipelines.registry.connection import Registry, connected
from pipelines.registry.fetch import Reference, fetch
from pipelines.registry.promote import rollback
from tests.registry.conftest import CutOffError, Desk


def clean(desk: Desk, *, keep: int = 10, older_than_seconds: float = -60, dry_run: bool = False) -> int:
    """Removes what is older (all of it, being made before the next minute); returns how many."""
    before = time.time() - older_than_seconds
    return len(clean_registry(desk.registry, before=before, keep_champions=keep, dry_run=dry_run))


def model_folders(desk: Desk) -> list[Path]:
    return list((desk.registry.home / "mlflow" / "artifacts").rglob("model.keras"))


def refuse(desk: Desk, *seeds: int) -> None:
    for seed in seeds:
        desk.settle(desk.register(seed, accuracy=0.5), promote=False)


def test_refused_models_go_and_champions_stay(trained: Desk) -> None:
    refuse(trained, 4, 5)  # 5 is the challenger
    assert clean(trained, dry_run=True) == 1
    assert clean(trained, older_than_seconds=60) == 0
    assert trained.versions == [5, 4, 3, 2, 1]
    assert clean(trained) == 1
    assert (trained.versions, len(model_folders(trained))) == ([5, 3, 2, 1], 4)
    assert (trained.champion, trained.history) == (3, [1, 2, 3])
    for version in trained.versions:
        fetch(trained.registry, Reference("pets", None, version))  # whole, by its digest
    with connected(trained.registry) as client:
        experiment = client.get_experiment_by_name("pets")
        cleaned = client.search_runs([experiment.experiment_id], f"tags.`{CLEANED_TAG}` = 'removed'")
        assert [run.data.metrics["test_accuracy"] for run in cleaned] == [0.5]  # its figures are still there


def test_a_rollback_goes_as_far_back_as_was_kept(trained: Desk) -> None:
    assert clean(trained, keep=1) == 1
    assert trained.versions == [3, 2]
    with pytest.raises(InputError, match="`pets` has no version 1; it has 2, 3"):
        trained.change(rollback, to=1, reason="")
    assert trained.change(rollback, to=None, reason="") == (3, 2)
    assert trained.champion == 2
    with pytest.raises(InputError, match="no earlier champion to go back to"):
        trained.change(rollback, to=None, reason="")


def test_what_was_removed_can_be_registered_again(trained: Desk) -> None:
    refuse(trained, 4, 5)
    clean(trained)
    again = trained.register(4, accuracy=0.5)
    assert (again.version, again.settled) == (6, False)
    fetch(trained.registry, Reference("pets", None, 6))


@pytest.mark.parametrize("change", range(4))
def test_killed_between_two_changes_a_version_is_whole_or_gone(trained: Desk, change: int) -> None:
    from mlflow import MlflowClient

    refuse(trained, 4, 5)
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        for name in ("set_tag", "delete_model_version", "delete_tag"):
            patched.setattr(MlflowClient, name, dying(made, change, getattr(MlflowClient, name)))
        with pytest.raises(CutOffError):
            clean(trained)
    for version in trained.versions:
        fetch(trained.registry, Reference("pets", None, version))
    clean(trained)
    assert (trained.versions, len(model_folders(trained))) == ([5, 3, 2, 1], 4)


def dying(made: list[str], change: int, function: object) -> object:
    def call(*arguments: object, **named: object) -> object:
        if len(made) == change:
            raise CutOffError
        made.append("")
        return function(*arguments, **named)  # type: ignore[operator]

    return call


def test_registered_again_after_a_kill_it_keeps_its_files(trained: Desk) -> None:
    from mlflow import MlflowClient

    refuse(trained, 4, 5)
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MlflowClient, "delete_tag", dying(made, 0, MlflowClient.delete_tag))
        with pytest.raises(CutOffError):
            clean(trained)
    version = trained.register(4, accuracy=0.5).version
    trained.register(6)  # now that is the challenger
    assert clean(trained, older_than_seconds=60) == 0
    fetch(trained.registry, Reference("pets", None, version))


def test_a_home_without_a_registry_gets_none(tmp_path: Path) -> None:
    assert clean(Desk(Registry(tmp_path), [])) == 0
    assert not list(tmp_path.iterdir())
