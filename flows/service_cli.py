"""The commands about the Prefect server: `imagemill setup` and `imagemill status`; `flows.cli` mounts them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.options import Home, Verbose
from flows.request import DEFAULT_HOME, check_home
from flows.service import quieten
from flows.surroundings import stderr_to_log

app = typer.Typer()


@app.command()
def setup(
    pool: Annotated[str, typer.Option(help="Work pool to make, of type process.")] = "imagemill",
    verbose: Verbose = False,
) -> None:
    """Make what runs need on the configured Prefect server: slots, a work pool, an automation."""
    quieten(verbose=verbose)
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        from flows.setup import set_up

        set_up(pool=pool, console=Console())


@app.command()
def status(
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Show what runs, what waits and what ended last."""
    check_home(home)
    quieten(verbose=verbose)
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        from flows.status import show_status

        show_status(home, console=Console())
