"""The `imagemill` command as processes of their own, with a recipe that learns colours in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.flows.conftest import LEARNS, TINY

_COMMAND = str(Path(sys.executable).with_name("imagemill"))


def write_recipe(path: Path, **changes: Any) -> Path:
    """Writes the recipe with some sections changed; returns the path."""
    path.write_text(yaml.safe_dump({**TINY, **LEARNS, "registry": {"enabled": True}, **changes}))
    return path


def start_command(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts it, without a Prefect server of somebody else's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([_COMMAND, *map(str, arguments)], env={**clean, **(environment or {})}, **pipes)


def finish(process: subprocess.Popen[str]) -> str:
    """What a command that has to succeed says."""
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, said + errors
    return said


def run_folder(said: str) -> Path:
    """The run folder that a command names at its end."""
    (line,) = [line for line in said.splitlines() if line.startswith("In /")]
    return Path(line.removeprefix("In ").removesuffix(":"))
