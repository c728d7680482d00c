"""Slots on a real server: taken, waited for, and back by themselves when their holder was killed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pipelines.errors import RunError
from pipelines.progress import Progress
from tests.service.processes import Server, hold_slot, poll
from tests.tasks.test_devices import put_driver

pytestmark = pytest.mark.slow


def make_limit(name: str, count: int) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, count)


def active_slots(name: str) -> int:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return int(client.read_global_concurrency_limit_by_name(name).active_slots)


@pytest.fixture(autouse=True)
def _own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_SLOTS", str(tmp_path / "slots"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_slot_is_taken_on_the_server_and_the_next_one_waits_and_says_for_what(configured: Server, tmp_path: Path) -> None:
    from tasks.slots import device_slot

    limit = f"cpu-{socket.gethostname()}"
    make_limit(limit, 1)
    said: list[str] = []
    waiting = threading.Event()

    def hear(progress: Progress) -> None:
        said.append(progress.detail)
        waiting.set()

    # On the same host with locks elsewhere, as in another container: only the server knows of it.
    holder = hold_slot(configured, socket.gethostname(), tmp_path / "elsewhere")
    assert active_slots(limit) == 1
    ending = threading.Thread(target=lambda: waiting.wait(60) and holder.communicate())
    ending.start()
    with device_slot(report=hear) as environment:
        assert environment == {"CUDA_VISIBLE_DEVICES": "-1"}
        assert active_slots(limit) == 1
    ending.join()
    assert holder.returncode == 0
    assert active_slots(limit) == 0
    assert said == [f"waits for the processor of this host: another run has it (slot {limit} on the server)"]


def test_a_host_that_the_server_does_not_know_takes_turns_all_the_same(
    configured: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tasks.devices import find_devices, taken_devices
    from tasks.slots import device_slot

    monkeypatch.setattr("socket.gethostname", lambda: "unknown")
    with caplog.at_level("INFO"), device_slot():
        assert taken_devices(find_devices()) == ["cpu"]
    assert "the server has no slots `cpu-unknown`: only runs of this host take turns" in caplog.text


def test_gpus_are_handed_over_and_fewer_slots_than_devices_are_refused(
    configured: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.slots import device_slot

    put_driver(tmp_path / "bin", monkeypatch, "echo GPU-a; echo GPU-b")
    monkeypatch.setattr("socket.gethostname", lambda: "twins")
    make_limit("gpu-twins", 2)
    with device_slot(2) as environment:
        assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
        assert active_slots("gpu-twins") == 2
    make_limit("gpu-twins", 1)
    with pytest.raises(RunError, match=r"the server has 1 slots `gpu-twins` for 2 devices"), device_slot(2):
        pass


def test_a_restart_of_the_server_ends_nobody_and_leaks_no_slot(configured: Server, tmp_path: Path) -> None:
    make_limit("cpu-lasting", 1)
    holder = hold_slot(configured, "lasting", tmp_path / "lasting")
    try:
        configured.restart()
        assert active_slots("cpu-lasting") == 1
    finally:
        holder.communicate(timeout=60)
    assert holder.returncode == 0
    poll("the slot", lambda: active_slots("cpu-lasting") == 0)


def test_the_slot_of_a_killed_holder_comes_back(configured: Server) -> None:
    poll("the lease to run out", lambda: active_slots("cpu-doomed") == 0, seconds=200)
