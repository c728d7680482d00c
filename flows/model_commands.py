"""The commands of the model registry: `imagemill models`, `promote` and `rollback`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.options import Home, RegistryUri, Verbose
from flows.request import DEFAULT_HOME, find_registry
from flows.surroundings import stderr_to_log

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="A registered model.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A registered model.", show_default="all, in short")] = None,
    deliver: Annotated[bool, typer.Option("--deliver", help="First register the runs that wait for the registry.")] = False,
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Show registered models: versions, champion and challenger, figures, the gate's verdicts."""
    from flows.models import show_models

    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        show_models(find_registry(registry, home=home), name, deliver=deliver, console=Console())


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="Of the model.", show_default=False)],
    reason: Reason = "by hand",
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Make a version the champion, whatever the gate said."""
    from flows.models import promote_version

    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        promote_version(find_registry(registry, home=home), name, version, reason=reason, console=Console())


@app.command()
def rollback(
    name: Name,
    to: Annotated[int | None, typer.Option(help="Version that was champion.", show_default="the champion before")] = None,
    reason: Reason = "by hand",
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Make an earlier champion the champion again."""
    from flows.models import roll_back

    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        roll_back(find_registry(registry, home=home), name, to=to, reason=reason, console=Console())
