"""`imagemill check`: what is in a source, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.console import display_stages, print_bad_files, print_groups, print_table, print_where_to_look, printable, say
from flows.request import check_outside, dataset_name
from pipelines.config import SPLITS, Recipe
from pipelines.run_folder import INDEX, check_target
from pipelines.slices import ingest_slice
from pipelines.sources.folder import count_ignored, digest_files
from pipelines.sources.source import FolderSource, Source
from pipelines.store.artifacts import folder_in_place, write_json
from pipelines.store.index import usable, write_index
from tasks.progress import reporter

REPORT = "check.json"


def check_source(source: Source, recipe: Recipe, *, home: Path, out: Path | None, console: Console) -> None:
    """Looks at every file, prints what was found and, with `out`, writes index.parquet and check.json.

    Splits are those that a run with this home would draw; nothing is written to the home.

    Raises:
        InputError: a run on this source would be refused, said after everything else was.
    """
    if out is not None:
        check_target(out, files=(REPORT, INDEX))
        check_outside(source, "--out", out)
    from pipelines.sources.ingest import check_bad_files, draw_splits, examine_files, group_near_equal, ledger_path
    from pipelines.sources.splits import read_ledger
    from pipelines.sources.summary import summarise

    with display_stages(console):
        classes, found = source.find(report=reporter("check"))
        files = digest_files(source.root, found)
        rows = examine_files(source.root, files, max_pixels=recipe.max_pixels, report=reporter("check"))
    group_near_equal(rows, max_bits=recipe.split.near_equal_bits)
    ignored = count_ignored(source.root) if isinstance(source, FolderSource) else {}
    report = {**summarise(rows, classes), "ignored_files": ignored}
    _print_report(console, rows, report)
    config = ingest_slice(recipe, dataset=dataset_name(source, recipe))
    assigned = read_ledger(ledger_path(home, config))
    try:
        check_bad_files(rows, max_bad_fraction=recipe.max_bad_fraction, shown=0)  # the report has named them
        draw_splits(rows, classes, config=config, assigned=assigned)
        _print_splits(console, rows, classes)
    finally:
        if out is not None:
            with folder_in_place(out) as folder:
                write_index(folder / INDEX, rows)
                write_json(folder / REPORT, report)
            print_where_to_look(console, out, [(INDEX, "every file seen"), (REPORT, "the findings")])


def _print_report(console: Console, rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> None:
    say(console, f"{report['files']} files, {len(report['bad_files'])} bad, {len(report['classes'])} classes")
    if report["shorter_side_px"]:
        sides, formats = (
            report["shorter_side_px"],
            ", ".join(f"{name} {count}" for name, count in report["formats"].items()),
        )
        say(
            console,
            f"shorter side {sides['smallest']} to {sides['largest']} px, median {sides['median']}; formats: {formats};"
            f" {report['bytes'] / 2**20:.1f} MiB",
        )
    if report["ignored_files"]:
        others = ", ".join(f"{name or 'no extension'} {count}" for name, count in sorted(report["ignored_files"].items()))
        say(console, f"{sum(report['ignored_files'].values())} other files are no images by their names: {others}")
    print_bad_files(console, rows)
    for name, what in (
        ("leaks", "in more than one split folder: the judging images leak into training"),
        ("conflicts", "in more than one class: at least one of the labels is wrong"),
        ("duplicates", "equal or near-equal; they will share a split"),
    ):
        heading = f"{len(report[name])} groups of images are {what}:"
        print_groups(console, report[name], heading=heading, all_in=REPORT)


def _print_splits(console: Console, rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
    counts = Counter((row["label"], row["split"]) for row in usable(rows))
    table = Table(title="images of each class and split", title_justify="left")
    table.add_column("class")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for name in classes:
        table.add_row(Text(printable(name)), *(str(counts[name, split]) for split in SPLITS))
    print_table(console, table)
