"""The child process that heavy stages run in: what it answers, how it ends, and that nothing of it stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.progress import Progress, Report, ignore_progress
from tasks import supervised
from tasks import worker as worker_module
from tasks.worker import ChildWorker, InProcess, WorkerLostError, current_worker, use_worker, working
from tests.processes import is_running, wait_for

NAMES = ("tell_pid", "leave_file", "tell_device", "fail", "die", "crash", "break_off", "say_much", "work", "ignore")
TOYS = {name: f"tests.tasks.toys:{name}" for name in NAMES}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildWorker]:
    monkeypatch.setattr(worker_module, "STAGES", TOYS)
    with ChildWorker(tmp_path / "logs") as worker:
        yield worker


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def pids_in(folder: Path) -> list[int]:
    wait_for(lambda: (folder / "pids").is_file() and bool((folder / "pids").read_text()))
    return [int(word) for word in (folder / "pids").read_text().split()]


def test_stages_share_one_process_of_a_session_of_its_own_that_ends_with_the_block(tmp_path: Path, child: ChildWorker) -> None:
    seen: list[Progress] = []
    child.expect()
    made = [child.run("tell_pid", {"name": name}, report=seen.append) for name in ("x", "y")]
    assert [listing.artifact.path for listing in made] == ["x", "y"]
    assert made[0].artifact.digest == made[1].artifact.digest == str(made[0].files) != str(os.getpid())
    assert seen == [Progress(1, 2, "files", name, images_per_second=0.5) for name in ("x", "y")]
    child.rest()
    assert not is_running(made[0].files)
    assert list((tmp_path / "logs").iterdir()) == []
    assert child.run("tell_pid", {"name": "z"}, report=ignore_progress).files != made[0].files


@pytest.mark.parametrize("ends", ["idle", "killed"])
def test_temporary_files_of_the_child_go_with_it(child: ChildWorker, ends: str) -> None:
    left = Path(child.run("leave_file", {}, report=ignore_progress))
    assert left.exists()
    if ends == "idle":
        child.rest()
    else:
        with pytest.raises(WorkerLostError):
            child.run("die", {"name": "SIGKILL"}, report=ignore_progress)
    assert not left.exists()
    assert not left.parent.name.startswith("imagemill-child-") or not left.parent.exists()


def test_the_errors_of_a_stage_come_out_as_what_they_were(child: ChildWorker) -> None:
    with pytest.raises(InputError, match=r"^`this` is wrong$"):
        child.run("fail", {"kind": "input"}, report=ignore_progress)
    with pytest.raises(OSError, match="/some/file") as raised:
        child.run("fail", {"kind": "disk"}, report=ignore_progress)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: nobody foresaw it") as other:
        child.run("fail", {"kind": "other"}, report=ignore_progress)
    assert other.value.__notes__ == ["while counting"]
    assert "toys.py" in str(other.value.__cause__)
    child.run("tell_pid", {"name": "and it still serves"}, report=ignore_progress)


@pytest.mark.parametrize(("name", "said"), [("SIGKILL", "as the system does when memory runs out"), ("SIGABRT", "SIGABRT")])
def test_a_lost_child_is_told_with_its_last_lines_and_the_next_stage_gets_another(
    name: str, said: str, child: ChildWorker, tmp_path: Path
) -> None:
    with pytest.raises(WorkerLostError, match=f"(?s)stage `die` ended by {name}.*the last words") as lost:
        child.run("die", {"name": name}, report=ignore_progress)
    assert said in str(lost.value)
    assert "absl" not in str(lost.value)
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in str(lost.value)
    child.run("tell_pid", {"name": "another"}, report=ignore_progress)


def test_an_answer_that_breaks_off_is_told_as_the_loss_that_it_is(child: ChildWorker) -> None:
    with pytest.raises(WorkerLostError, match=r"(?s)stage `break_off` ended by SIGKILL.*the last words"):
        child.run("break_off", {}, report=ignore_progress)


def test_what_a_child_that_crashed_had_started_does_not_stay(tmp_path: Path, child: ChildWorker) -> None:
    with pytest.raises(WorkerLostError, match="SIGABRT"):
        child.run("crash", {"folder": tmp_path}, report=ignore_progress)
    wait_for(lambda: not any(map(is_running, pids_in(tmp_path))))


def test_a_child_that_ends_while_it_is_idle_is_told_and_replaced_and_nothing_of_it_stays_open(
    tmp_path: Path, child: ChildWorker, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_files()
    first = child.run("tell_pid", {"name": "x"}, report=ignore_progress).files
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # shown as a zombie, it may have threads that are still ending
    assert child.run("tell_pid", {"name": "y"}, report=ignore_progress).files != first
    assert "which had nothing to do, ended by SIGKILL" in caplog.text
    assert "what a library says on standard output" in caplog.text
    child.rest()
    assert open_files() == before
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in caplog.text


def test_what_interrupts_the_parent_has_the_child_save_and_leave_with_all_that_it_started(
    tmp_path: Path, child: ChildWorker
) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run("work", {"folder": tmp_path}, report=interrupt)
    assert (tmp_path / "saved").read_text() == "all"
    wait_for(lambda: not any(map(is_running, pids_in(tmp_path))))


def test_a_child_that_has_more_to_say_than_anybody_reads_saves_and_leaves(tmp_path: Path, child: ChildWorker) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run("say_much", {"folder": tmp_path}, report=interrupt)
    assert (tmp_path / "saved").is_file()


def test_a_child_that_does_not_leave_is_killed(tmp_path: Path, child: ChildWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "SECONDS_TO_LEAVE", 0.1)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run("ignore", {"folder": tmp_path}, report=interrupt)
    assert not any(map(is_running, pids_in(tmp_path)))


def test_a_child_whose_parent_was_killed_saves_and_leaves(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from pipelines.progress import ignore_progress
from tasks import worker
worker.STAGES = {TOYS!r}
with worker.ChildWorker(Path({str(tmp_path)!r}, "logs")) as child:
    child.run("work", {{"folder": Path({str(tmp_path)!r})}}, report=ignore_progress)
"""
    (temporary := tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        pids = pids_in(tmp_path)
        parent.send_signal(signal.SIGKILL)
    wait_for((tmp_path / "saved").is_file)
    wait_for(lambda: not is_running(pids[0]))
    wait_for(lambda: not is_running(pids[1]))
    assert not list(temporary.iterdir())


def test_a_child_that_can_not_be_started_leaves_nothing(
    tmp_path: Path, child: ChildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_files()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="gone"):
        child.run("tell_pid", {"name": "x"}, report=ignore_progress)
    assert open_files() == before
    assert list((tmp_path / "logs").iterdir()) == []


def test_the_device_is_taken_for_the_first_stage_named_to_the_child_and_let_go_of_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STAGES", TOYS)
    events: list[str] = []

    @contextmanager
    def slot(report: Report) -> Iterator[dict[str, str]]:
        events.append("taken")
        report(Progress(0, 1, "slots", "waits"))
        yield {"TOY_DEVICE": f"device {len(events)}"}
        events.append("free")

    with ChildWorker(tmp_path / "logs", slot=slot) as child:
        child.expect()
        assert events == []
        for _ in range(2):
            assert child.run("tell_device", {}, report=ignore_progress) == "device 1"
        assert events == ["taken"]
        child.rest()
        assert events == ["taken", "free"]
        assert child.run("tell_device", {}, report=ignore_progress) == "device 3"
    assert events == ["taken", "free", "taken", "free"]


def test_a_worker_in_force_is_used_and_else_a_child_is_made(tmp_path: Path) -> None:
    here = InProcess()
    with use_worker(here), working(tmp_path) as found:
        assert found is here is current_worker()
