"""`imagemill clean`: removes from a home what nobody has used for long, so that retraining fills no disk."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.console import print_table, say
from flows.request import check_home
from pipelines.errors import InputError
from pipelines.registry.clean import clean_registry
from pipelines.registry.connection import Registry
from pipelines.store.in_use import home_alone
from pipelines.store.sweep import Leftover, remove, remove_empty_stores
from tasks.leftovers import days_ago, find_unused

KEEP_CHAMPIONS = 10  # steps that a rollback can go back, whatever the age of the models


def clean_home(home: Path, *, older_than_days: float, keep_champions: int, dry_run: bool = False) -> list[Leftover]:
    """Removes what no run has used for so long, unless a run is under way.

    All of it can be made again, but for models of the home's registry that are neither champion nor challenger nor one of the
    last champions: the runs that made them stay logged. Killed anywhere, the same call goes on where it was.

    Args:
        home: of earlier runs.
        older_than_days: age of what is removed, by its last use.
        keep_champions: how many former champions stay, whatever their age.
        dry_run: remove nothing.

    Returns:
        What was removed, or would be.

    Raises:
        InputError: it is no home.
        RunError: a run uses it.
    """
    check_home(home)
    if not (home / "records").is_dir():
        raise InputError(f"`--home` must be the home of earlier runs; {str(home)!r} is none")
    before = days_ago(older_than_days)
    with nullcontext() if dry_run else home_alone(home):
        found = list(find_unused(home, before=before))
        if not dry_run:
            for leftover in found:
                remove(home, leftover.path)
            remove_empty_stores(home)
        registry = Registry(home.absolute())
        return found + clean_registry(registry, before=before, keep_champions=keep_champions, dry_run=dry_run)


def show_cleaned(leftovers: list[Leftover], *, dry_run: bool, console: Console) -> None:
    """Prints in one table what was removed, or would be."""
    verb = "would be removed" if dry_run else "was removed"
    if not leftovers:
        say(console, f"nothing {verb}: all of it was used since")
        return
    table = Table(title=f"what {verb}", title_justify="left")
    table.add_column("what")
    for column in ("items", "MB"):
        table.add_column(column, justify="right")
    for kind in dict.fromkeys(leftover.kind for leftover in leftovers):
        table.add_row(kind, *_figures([leftover for leftover in leftovers if leftover.kind == kind]))
    table.add_row("together", *_figures(leftovers))
    print_table(console, table)


def _figures(leftovers: list[Leftover]) -> tuple[str, str]:
    return f"{len(leftovers):,}", f"{sum(leftover.size_bytes for leftover in leftovers) / 1e6:,.1f}"
