"""Which devices a host has, and that one process at a time has each."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.errors import InputError, RunError
from tasks.devices import Devices, find_devices, hold_devices, locks_folder, taken_devices

GPUS = ("GPU-aaaa", "GPU-bbbb", "GPU-cccc")
TWO = Devices("gpu", GPUS[:2], "here")
HOLDER = """
import sys
from tasks.devices import Devices, hold_devices
with hold_devices(Devices("cpu", ("cpu",), "here")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_SLOTS", str(tmp_path / "slots"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def put_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A driver's `nvidia-smi` that does what `script` says, before all others."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, GPUS),
        ("2,0", (GPUS[2], GPUS[0])),
        ("GPU-bb", (GPUS[1],)),
        ("0,7,1", (GPUS[0],)),
        ("0,0,1", (GPUS[0],)),
        ("-1", ()),
        ("", ()),
    ],
)
def test_gpus_are_what_the_driver_tells_and_cuda_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | None, found: tuple[str, ...]
) -> None:
    put_driver(tmp_path / "bin", monkeypatch, "\n".join(f"echo {gpu}" for gpu in GPUS))
    devices = find_devices({} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted})
    assert devices.names == (found or ("cpu",))
    assert devices.kind == ("gpu" if found else "cpu")
    assert devices.limit == f"{devices.kind}-{devices.host}"


def test_a_host_without_a_driver_has_its_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    devices = find_devices({})
    assert (devices.kind, devices.names) == ("cpu", ("cpu",))
    assert devices.environment(("cpu",)) == {"CUDA_VISIBLE_DEVICES": "-1"}


@pytest.mark.parametrize("by_hand", ["", "-1", "MIG-of-which-the-driver-tells-nothing"])
def test_who_has_the_processor_sees_no_gpu_but_what_was_named_by_hand(by_hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Devices("cpu", ("cpu",), "here")
    assert cpu.environment(("cpu",)) == {"CUDA_VISIBLE_DEVICES": "-1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", by_hand)
    assert cpu.environment(("cpu",)) == {}


def test_a_driver_that_fails_is_said_and_leaves_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_driver(tmp_path / "bin", monkeypatch, "echo mismatch >&2; exit 9")
    assert find_devices({}).kind == "cpu"
    assert "nvidia-smi fails" in caplog.text


def test_what_a_process_is_told_names_its_devices_alone_and_lets_memory_grow() -> None:
    told = TWO.environment((GPUS[1], GPUS[0]))
    assert told == {"CUDA_VISIBLE_DEVICES": "GPU-bbbb,GPU-aaaa", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def test_each_device_is_held_by_one_alone() -> None:
    with hold_devices(TWO) as first, hold_devices(TWO) as second:
        assert {*first, *second} == set(TWO.names)
        assert taken_devices(TWO) == list(TWO.names)
    assert taken_devices(TWO) == []


def test_who_needs_two_waits_for_both_and_says_so_once() -> None:
    said: list[str] = []
    waiting, held = threading.Event(), []

    def say() -> None:
        said.append("waits")
        waiting.set()

    def take_both() -> None:
        with hold_devices(TWO, 2, waiting=say) as both:
            held.extend(both)

    with hold_devices(TWO):
        other = threading.Thread(target=take_both)
        other.start()
        assert waiting.wait(60)
        assert held == []
    other.join(60)
    assert sorted(held) == list(TWO.names)
    assert said == ["waits"]


def test_a_killed_holder_lets_go_by_itself() -> None:
    cpu = Devices("cpu", ("cpu",), "here")
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert taken_devices(cpu) == ["cpu"]
        holder.kill()
        with hold_devices(cpu) as held:
            assert held == ("cpu",)


def test_more_devices_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match=r"`resources.devices` .*\(2 GPUs\); received 3"), ExitStack() as stack:
        stack.enter_context(hold_devices(TWO, 3))


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_SLOTS")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    mine = locks_folder()
    assert mine.parent == tmp_path
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.rmdir()
    (tmp_path / "theirs").mkdir()
    mine.symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match="belongs to somebody else"):
        locks_folder()
