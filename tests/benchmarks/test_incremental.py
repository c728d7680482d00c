"""The benchmark of incremental scans runs, and counts what was read and decoded."""

from __future__ import annotations

from pathlib import Path

from benchmarks.incremental import run_all


def test_only_what_is_new_is_read_and_decoded(tmp_path: Path) -> None:
    figures = run_all(tmp_path, images=120)
    assert (figures["first_read"], figures["first_decoded"]) == (120, 120)
    assert (figures["unchanged_read"], figures["unchanged_examined"], figures["unchanged_decoded"]) == (0, 0, 0)
    assert figures["verify_read"] == 120
    assert (figures["added_read"], figures["added_examined"], figures["added_decoded"]) == (1, 1, 1)
