"""How every benchmark says what it measured: on the terminal, and as JSON with the machine, the date and the command."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def write_results(figures: Mapping[str, float], path: Path | None) -> None:
    """Prints the figures, and writes {"machine", "date", "command", "figures"} to `path` where one is given."""
    for name, value in figures.items():
        print(f"{name:<28} {value:.4g}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        content = {"machine": machine(), "date": date, "command": command(), "figures": dict(figures)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def command() -> str:
    """The benchmark that runs and its arguments, paths without their folders: these are of one machine alone."""
    arguments = ["".join(map(_without_folder, re.split("([=:])", argument))) for argument in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])


def _without_folder(text: str) -> str:
    return Path(text).name if "/" in text else text


def machine() -> str:
    """The processor, its cores and the memory, in a few words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    if any(line.startswith("flags") and "avx512f" in line.split() for line in lines):
        model += " with AVX-512"  # convolutions are twice as fast, and processors of one name may or may not have it
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
