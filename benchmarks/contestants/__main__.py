"""One contestant as a process: `python -m benchmarks.contestants NAME SETTINGS`, the settings as JSON.

It builds its pipeline, makes one pass to warm up and says so. From then on each line on standard input, a number of seconds,
asks for one measurement. Every answer is a line of JSON on standard output: {"ready": true} or {"skipped": REASON}, then
the figures. It ends when standard input is closed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from benchmarks.contestants import CONTESTANTS, OPTIONAL, Settings


def main() -> None:
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    # Libraries print to standard output as they like; the answers must stay readable.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, function, options = CONTESTANTS[name]
    try:
        measure = getattr(importlib.import_module(f"benchmarks.contestants.{module}"), function)(settings, **options)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        print(json.dumps({"skipped": f"{error.name} is not installed"}), file=answers)
        return
    measure(0)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        print(json.dumps(measure(float(line))), file=answers)


if __name__ == "__main__":
    main()
