"""`imagemill watch`: the watch flow from a terminal, once or again and again."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from time import sleep

from rich.console import Console

from flows.console import display_stages, say
from flows.surroundings import configure, start_prefect, stderr_to_log
from pipelines.errors import one_line

_SAID = {
    "changed": "changed, and announced as dataset.changed",
    "unheard": "changed, but no Prefect server is configured that could hear of it: set PREFECT_API_URL",
    "settling": "changed, and not yet quiet for long enough",
    "known": "as it was announced",
    "busy": "being looked at by another watcher",
}


def watch_source(
    source: str, *, dataset: str | None, settle_seconds: float, every_seconds: float | None, home: Path, verbose: bool
) -> None:
    """Looks at a source and prints what was found; with `every_seconds` again, until Ctrl-C.

    Raises:
        Exception: the first look failed; later failures are printed, and the next look is taken all the same.
    """
    console = Console()
    configure(home, verbose=verbose)
    with stderr_to_log(home / "logs", verbose=verbose):
        start_prefect(console, meanwhile=partial(import_module, "flows.watch"))
        from flows.watch import watch

        looks = 0
        while not looks or every_seconds is not None:
            try:
                with display_stages(console):
                    found = watch(source, str(home), dataset, settle_seconds)
                say(console, f"{source}: {_SAID[found['state']]} (content {found.get('digest', 'unknown')[:12]})")
            except Exception as error:
                if not looks:
                    raise
                say(console, one_line(error))
            looks += 1
            if every_seconds is not None:
                sleep(every_seconds)
