"""What a benchmark writes down."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.results import write_results


def test_the_command_is_kept_without_the_machine_s_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "../data/photos/",
        "/my data/photos.tar",
        "digits=/data/my digits:96",
        "--set",
        "cache.mode=off",
        f"--json={tmp_path}/a.json",
    ]
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/two_phase.py", *arguments])
    write_results({"seconds_ours": 41.7}, tmp_path / "new folder" / "a.json")
    content = json.loads((tmp_path / "new folder" / "a.json").read_text())
    assert content["command"] == (
        "python -m benchmarks.two_phase photos photos.tar 'digits=my digits:96' --set cache.mode=off --json=a.json"
    )
    assert content["figures"] == {"seconds_ours": 41.7}
    assert set(content) == {"machine", "date", "command", "figures"}
    assert capfd.readouterr().out.split() == ["seconds_ours", "41.7"]
