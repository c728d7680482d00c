"""What `imagemill status` tells without a server: the home, and the devices of this host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.status import describe_home, show_status
from pipelines.registry.connection import Registry
from pipelines.registry.promote import rollback
from tasks.devices import find_devices, hold_devices
from tests.registry.conftest import Desk


def test_a_home_tells_of_training_under_way_of_failed_runs_and_of_taken_devices(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "fine_tune-0123").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "20261122-101112-7.log").touch()
    with hold_devices(find_devices()):
        said = list(describe_home(tmp_path))
    assert said[0] == f"home: {tmp_path}"
    assert said[1:3] == ["training under way, or interrupted:", said[2]]
    assert said[2].startswith("  fine_tune: last saved 20")
    assert said[3] == "champions: none"
    assert said[4] == "failed last:"
    assert said[5].endswith(f": {tmp_path / 'logs' / '20261122-101112-7.log'}")
    assert said[6].startswith("devices of this host: 1 of ")


def test_it_tells_which_model_was_promoted_last_or_gone_back_to_and_why(tmp_path: Path) -> None:
    desk = Desk(Registry(tmp_path), [])
    desk.train(1, 2)
    desk.settle(desk.register(3), promote=False)
    said = list(describe_home(tmp_path))
    place = said.index("champions:")
    assert re.fullmatch(r"  pets: version 2, promoted 20\d\d-\d\d-\d\d \d\d:\d\d: better", said[place + 1])
    assert said[place + 2] == "failed last: none"
    desk.change(rollback, to=None, reason="it was slow")
    assert re.fullmatch(r"  pets: version 1, rolled back 20\d\d-.*: it was slow", list(describe_home(tmp_path))[place + 1])


def test_an_empty_home_has_nothing_to_tell(tmp_path: Path) -> None:
    said = list(describe_home(tmp_path / "none"))
    assert said[0].endswith("none, which is not there yet")
    assert said[1:3] == ["training under way, or interrupted: none", "failed last: none"]


def test_without_a_server_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from rich.console import Console

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        show_status(tmp_path, console=Console())
    assert "server: none configured; runs use a temporary one each" in capfd.readouterr().out
