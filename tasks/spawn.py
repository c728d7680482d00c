"""Other Python processes that run a function of this code. Imports nothing heavy."""

from __future__ import annotations

import json
import sys


def python_command(module: str, function: str, *arguments: str) -> list[str]:
    """A command that calls a function without arguments, in a process that finds modules where this one does.

    Args:
        module: of the function.
        function: its name.
        arguments: the last ones in the process's `sys.argv`.
    """
    code = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import {function}; {function}()"
    return [sys.executable, "-c", code, json.dumps(sys.path), *arguments]
