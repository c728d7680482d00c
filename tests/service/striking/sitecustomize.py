"""Ends processes of the service by kill -9 at moments that a file names: Python imports this where its folder is on PYTHONPATH.

Each line of the file `STRIKES` is a victim and a part of a path: just before a file or folder gets a name with that part in it,
the victim is killed, once. The victim is the process that does it (`self`), the flow's or the worker's.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_ORDERS = Path(os.environ["STRIKES"])


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _strike(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "os.rename" or not _ORDERS.exists():
        return
    name, orders = os.fsdecode(arguments[1]), _ORDERS.read_text().splitlines()
    for order in orders:
        victim, _, part = order.partition(" ")
        if part not in name:
            continue
        _ORDERS.write_text("".join(f"{other}\n" for other in orders if other != order))
        in_child = "tasks.child" in Path("/proc/self/cmdline").read_text()
        flow = os.getppid() if in_child else os.getpid()
        os.kill({"self": os.getpid(), "flow": flow, "worker": _parent(flow)}[victim], signal.SIGKILL)


sys.addaudithook(_strike)
