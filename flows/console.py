"""What the command shows: a live display of the stages on a terminal, plain lines elsewhere, and the figures at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipelines.errors import quoted
from pipelines.progress import Progress as StageProgress
from tasks.progress import Listener, listening

_LONGEST_NAME = 40
_FEW_IMAGES = 10
_WIDEST = 10_000  # columns


def printable(name: str, *, longest: int = _LONGEST_NAME) -> str:
    """A name that can't break a line or colour a terminal: what is not printable is escaped as Python does."""
    shown = name if name.isprintable() else repr(name)[1:-1]
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def say(console: Console, line: str = "") -> None:
    """Prints a line as it is: not wrapped, not coloured, brackets left alone."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_table(console: Console, table: Table) -> None:
    """Prints a table: in a log as wide as all that is in it, on a terminal with long words below each other where it has to be.

    A table of rich's own is never wider than 80 columns in a log, and what has no room there is left out, figures too.
    """
    widths = Measurement.get(console, console.options.update(max_width=_WIDEST), table)
    fits = min(max(console.width, widths.minimum), widths.maximum)
    table.width = fits if console.is_terminal else widths.maximum
    console.print(table, crop=False, no_wrap=True, overflow="ignore")


class LiveDisplay:
    """One line per stage with a bar, the last epoch's figures, images per second and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def started(self, stage: str) -> None:
        """Adds the stage's line, its bar pulsing until something is known."""
        self._lines[stage] = self._progress.add_task(stage, total=None, detail="", rate="")

    def progressed(self, stage: str, progress: StageProgress) -> None:
        """Moves the bar."""
        line = self.line(stage)
        rate = "" if progress.images_per_second is None else f"{progress.images_per_second:,.0f} images/s"
        detail = progress.detail or f"{progress.done:,}/{progress.total:,} {progress.unit}"
        self._progress.update(line, completed=progress.done, total=progress.total, detail=detail, rate=rate)

    def finished(self, stage: str, *, seconds: float, hit: bool) -> None:  # noqa: ARG002 (the bar has a clock of its own)
        """Fills the bar, whose time left becomes the time it took, or says that nothing had to be done."""
        line = self.line(stage)
        total = self._progress.tasks[line].total or 1
        self._progress.update(line, completed=total, total=total, rate="cached" if hit else "")
        self._progress.stop_task(line)

    def noted(self, line: str) -> None:
        """Prints the line above the bars."""
        say(self._progress.console, line)

    def line(self, stage: str) -> TaskID:
        """The line of a stage."""
        if stage not in self._lines:
            self.started(stage)
        return self._lines[stage]


class PlainDisplay:
    """One line when something is finished: a stage, an epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, stage: str) -> None:
        """Says nothing: the end does."""

    def progressed(self, stage: str, progress: StageProgress) -> None:
        """Prints milestones."""
        if progress.milestone:
            rate = "" if progress.images_per_second is None else f"  {progress.images_per_second:,.0f} images/s"
            say(self._console, f"{stage}: {progress.detail}{rate}")

    def finished(self, stage: str, *, seconds: float, hit: bool) -> None:
        """Prints the stage with its time."""
        say(self._console, f"{stage}: {'cached' if hit else f'done in {seconds:.1f} s'}")

    def noted(self, line: str) -> None:
        """Prints the line."""
        say(self._console, line)


@contextmanager
def display_stages(console: Console) -> Iterator[None]:
    """Shows what the stages inside do."""
    if not console.is_terminal:
        with listening(PlainDisplay(console)):
            yield
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[rate]:>14}"),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as progress:
        listener: Listener = LiveDisplay(progress)
        with listening(listener):
            yield


def print_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """Prints the figures of `metrics.json`: one row per class, the averages, and the accuracy with its interval."""
    table = Table(title=f"{metrics['split']}: {metrics['examples']} images", title_justify="left")
    table.add_column("class")
    for name in ("precision", "recall", "f1", "support"):
        table.add_column(name, justify="right")
    for name in metrics["confusion_matrix"]["labels"]:  # in label order, which a JSON file's sorted keys are not
        figures = metrics["per_class"][name]
        table.add_row(Text(printable(name)), *_cells(figures), str(figures["support"]))
    table.add_section()
    for average in ("macro", "weighted"):
        table.add_row(f"{average} average", *_cells(metrics[average]), str(metrics["examples"]))
    print_table(console, table)
    if few := [name for name, figures in metrics["per_class"].items() if figures["support"] < _FEW_IMAGES]:
        say(console, f"note: {len(few)} classes have fewer than {_FEW_IMAGES} images here, so their figures say little")
    low, high = metrics["accuracy_ci95"]
    say(console, f"accuracy {metrics['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}), loss {metrics['loss']:.4f}")


def print_bad_files(console: Console, rows: Sequence[Mapping[str, Any]], *, most: int = 20) -> None:
    """Prints the quarantined files of an index with their reasons; the index itself lists all."""
    bad = [row for row in rows if row["status"] == "bad"]
    if not bad:
        return
    say(console, f"{len(bad)} of {len(rows)} files can't be used:")
    for row in bad[:most]:
        say(console, f"  {quoted(row['path'])}: {row['reason']}")
    if len(bad) > most:
        say(console, f"  ... and {len(bad) - most} more; index.parquet lists them all")


def print_groups(console: Console, groups: Sequence[Sequence[str]], *, heading: str, all_in: str, most: int = 10) -> None:
    """Prints groups of paths below a heading, nothing where there are none; `all_in` says what lists the rest."""
    if groups:
        say(console, heading)
    for paths in groups[:most]:
        say(console, "  " + ", ".join(map(repr, paths)))
    if len(groups) > most:
        say(console, f"  ... and {len(groups) - most} more; {all_in} lists them all")


def print_where_to_look(console: Console, folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Prints files of a folder with what they are for."""
    say(console, f"\nIn {folder}:")
    for name, what in rows:
        if (folder / name).exists():
            say(console, f"  {name:<22} {what}")


def _cells(figures: Mapping[str, float]) -> list[str]:
    return [f"{figures[name]:.3f}" for name in ("precision", "recall", "f1")]
