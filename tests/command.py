"""The command in this process: with the settings and the environment of the test."""

from __future__ import annotations

import sys

import pytest

from flows.cli import main


def run_command(*arguments: object) -> int:
    """Runs it; returns its exit status."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["imagemill", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
    return int(caught.value.code or 0)
