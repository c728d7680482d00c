"""What is removed from a home, and what stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipelines.store.artifacts import publish, scratch_folder
from pipelines.store.sweep import Named, find_leftovers, remove, remove_empty_stores

OLD, NOW = 1_000_000_000, 2_000_000_000


def put(path: Path, *, at: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    os.utime(path, (at, at))
    return path


def found(home: Path, named: Named) -> set[str]:
    return {leftover.path.relative_to(home).as_posix() for leftover in find_leftovers(home, named, before=OLD + 1)}


def test_what_is_named_stays_and_so_does_what_is_young(tmp_path: Path) -> None:
    for store in ("images/32px", "activations/net/32px/plain"):
        for name in ("named", "unused"):
            put(tmp_path / store / f"{name}.arrow", at=OLD)
        put(tmp_path / store / "young.arrow", at=NOW)  # of an interrupted run, perhaps
        put(tmp_path / store / "verified.json", at=OLD)
    named = Named()
    views = [{"store": "activations/net/32px/plain", "shards": ["named.arrow"]}]
    named.add({"kept": [{"store": "images/32px", "shards": ["named.arrow"]}], "activations": {"views": views}})
    assert found(tmp_path, named) == {"images/32px/unused.arrow", "activations/net/32px/plain/unused.arrow"}


def test_an_artifact_stays_while_a_record_names_it(tmp_path: Path) -> None:
    artifacts = []
    for content in ("a", "b"):
        with scratch_folder(tmp_path) as folder:
            (folder / "file").write_text(content)
            artifacts.append(publish(tmp_path, "head", folder))
            os.utime(tmp_path / artifacts[-1].path, (OLD, OLD))
    named = Named()
    named.add({"artifact": artifacts[0].model_dump(), "phase": "head"})
    assert found(tmp_path, named) == {artifacts[1].path}


def test_folders_of_the_user_s_own_are_no_artifacts(tmp_path: Path) -> None:
    put(tmp_path / "artifacts" / "mine" / "holiday" / "photo.jpg", at=OLD)
    put(tmp_path / "images" / "photo.jpg", at=OLD)
    assert found(tmp_path, Named()) == set()


def test_what_killed_processes_left_is_found_but_not_what_recovers_a_run_folder(tmp_path: Path) -> None:
    for name in ("challengers/.pets.0a1b2c3d", "challengers/.pets.0a1b2c3d.earlier", "registry/outbox/.1.delivered"):
        put(tmp_path / name / "model.keras", at=OLD)
        os.utime(tmp_path / name, (OLD, OLD))
    put(tmp_path / "tmp" / "half-unused" / "file", at=NOW)
    with scratch_folder(tmp_path):
        left = {"challengers/.pets.0a1b2c3d", "registry/outbox/.1.delivered", "tmp/half-unused"}
        assert found(tmp_path, Named()) == left


def test_a_folder_whose_removal_is_cut_off_is_gone_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(tmp_path / "artifacts" / "head" / "abc" / "artifact.json", at=OLD).parent

    def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(tmp_path, folder)
    assert not folder.exists()
    (left,) = find_leftovers(tmp_path, Named(), before=OLD)
    assert (left.kind, left.size_bytes) == ("unfinished work of killed processes", 5)
    remove(tmp_path, left.path)
    remove(tmp_path, left.path)  # gone already
    assert list((tmp_path / "tmp").iterdir()) == []


def test_stores_without_shards_go_with_their_notes(tmp_path: Path) -> None:
    kept = put(tmp_path / "images" / "32px" / "a.arrow", at=OLD)
    put(tmp_path / "images" / "64px" / "verified.json", at=OLD)
    put(tmp_path / "activations" / "net" / "32px" / "plain" / "verified.json", at=OLD)
    remove_empty_stores(tmp_path)
    assert kept.exists()
    assert {path.name for path in tmp_path.rglob("*")} == {"activations", "images", "32px", "a.arrow"}
