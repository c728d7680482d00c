"""Artifacts: whole or absent, and an altered one is noticed."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.contracts import Artifact
from pipelines.errors import RunError
from pipelines.store.artifacts import (
    artifact_path,
    disk_errors,
    file_in_place,
    folder_in_place,
    is_intact,
    publish,
    scratch_folder,
)


def make(home: Path, content: str = "content", seconds: str = "1") -> Artifact:
    with scratch_folder(home) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a file.txt").write_text(content)
        (folder / "seconds.json").write_text(seconds)
        return publish(home, "stage", folder)


def test_equal_content_is_one_artifact_whatever_time_it_took(tmp_path: Path) -> None:
    first, again, other = make(tmp_path), make(tmp_path, seconds="2"), make(tmp_path, content="other")
    assert first == again
    assert first.digest != other.digest
    assert len(list((tmp_path / "artifacts" / "stage").iterdir())) == 2
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "inner" / "a file.txt").write_text("altered"),
        lambda folder: (folder / "inner" / "a file.txt").unlink(),
        lambda folder: (folder / "extra").write_text("x"),
        lambda folder: (folder / "seconds.json").write_text("9"),
        lambda folder: (folder / "artifact.json").write_text("{}"),
        lambda folder: (folder / "artifact.json").write_text("[]"),
        lambda folder: (folder / "artifact.json").unlink(),
    ],
)
def test_damage_is_noticed_and_mended_by_making_it_again(tmp_path: Path, damage: object) -> None:
    artifact = make(tmp_path)
    assert is_intact(tmp_path, artifact)
    damage(artifact_path(tmp_path, artifact))  # type: ignore[operator]
    assert not is_intact(tmp_path, artifact)
    assert make(tmp_path) == artifact
    assert is_intact(tmp_path, artifact)


def test_a_missing_artifact_is_not_intact(tmp_path: Path) -> None:
    assert not is_intact(tmp_path, Artifact(path="artifacts/stage/none", digest="0"))


def scratch_folders(home: Path) -> list[Path]:
    return sorted(path for path in (home / "tmp").iterdir() if path.is_dir())


def test_scratch_folders_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.store.artifacts import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n (folder / 'x').write_text('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(scratch_folders(tmp_path)) == 1
    with scratch_folder(tmp_path) as mine, scratch_folder(tmp_path) as second:
        assert scratch_folders(tmp_path) == sorted([mine, second])
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(RunError, match="no space left on the device"), scratch_folder(tmp_path) as folder:
        (folder / "half").write_text("x")
        raise error
    with pytest.raises(RunError, match="no space left"), folder_in_place(tmp_path / "out"):
        raise error
    with pytest.raises(RunError, match="no space left"), disk_errors(tmp_path):
        try:
            raise error
        except OSError as wrapped:
            raise ValueError("a library's own words") from wrapped
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "out").exists()


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path):
        raise ZeroDivisionError


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with folder_in_place(target) as folder:
        (folder / "first").write_text("1")
    with pytest.raises(ZeroDivisionError), folder_in_place(target) as folder:
        (folder / "second").write_text("2")
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["first"]
    with folder_in_place(target) as folder:
        (folder / "second").write_text("2")
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_can_not_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with folder_in_place(target) as folder:
        (folder / "first").write_text("1")
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if to == target and not self.name.endswith(".earlier"):
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_in_place(target) as folder:
        (folder / "second").write_text("2")
    assert [path.name for path in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_put_back_after_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.store.artifacts import folder_in_place\n"
        "target, rename = Path(sys.argv[1]), Path.rename\n"
        "def deadly(self, to):\n os._exit(9) if to == target else rename(self, to)\n"
        "Path.rename = deadly\n"
        "with folder_in_place(target) as folder:\n (folder / 'second').write_text('2')"
    )
    target = tmp_path.resolve() / "out"
    with folder_in_place(target) as folder:
        (folder / "first").write_text("1")
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == 9
    assert not target.exists()
    with pytest.raises(ZeroDivisionError), folder_in_place(target):
        assert [path.name for path in target.iterdir()] == ["first"]
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["first"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with folder_in_place(tmp_path / "link") as folder:
        (folder / "first").write_text("1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "first").read_text() == "1"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with file_in_place(target) as temporary:
        temporary.write_text("1")
    with pytest.raises(ZeroDivisionError), file_in_place(target) as temporary:
        temporary.write_text("2")
        raise ZeroDivisionError
    assert target.read_text() == "1"
    assert list(target.parent.iterdir()) == [target]
