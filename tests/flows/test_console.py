"""What a terminal shows: one time for each stage, and names that are escaped once."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flows.console import display_stages
from pipelines.errors import quoted
from pipelines.progress import Progress
from tasks.progress import current_listener
from tests.command import run_command


def test_a_finished_stage_shows_one_time_and_a_cached_one_says_so() -> None:
    shown = io.StringIO()
    with display_stages(Console(file=shown, force_terminal=True, width=120)):
        listener = current_listener()
        listener.started("head")
        listener.progressed("head", Progress(5, 10, "images", images_per_second=7.0))
        listener.finished("head", seconds=61.5, hit=False)
        listener.finished("export", seconds=0.1, hit=True)
    head, export = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue()).splitlines()[-2:]
    assert len(re.findall(r"\d\d:\d\d|\d s\b", head)) == 1, head
    assert "images/s" not in head
    assert "cached" in export


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/plain.jpg", "'a/plain.jpg'"),
        ("a/it's.jpg", '"a/it\'s.jpg"'),
        ("a/new\nline.jpg", "'a/new\\nline.jpg'"),
        ("a/bad\\xff.jpg", "'a/bad\\xff.jpg'"),
    ],
)
def test_a_name_is_escaped_once(name: str, shown: str) -> None:
    assert quoted(name) == shown
    assert quoted(quoted(name)[1:-1])[1:-1] == shown[1:-1]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such names")
def test_check_shows_a_name_that_is_not_utf_8_escaped_once(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.rename(photos / "cat" / "000.jpg", os.fsencode(photos / "cat") + b"/bad\xff.jpg")  # noqa: PTH104 (`Path` takes no bytes)
    assert run_command("check", photos) == 0
    assert "  'cat/bad\\xff.jpg': unreadable: its name is not UTF-8" in capfd.readouterr().out
