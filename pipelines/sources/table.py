"""A CSV or Parquet table as a source: columns `path` and `label`, and `split` where splits are given. Imports no TensorFlow.

Paths are relative to the table's folder, or absolute; what a file is called does not matter, its content decides. Rows are
numbered from 1, the header not counted. The order of the rows is of no consequence.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import exists
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.config import SPLITS
from pipelines.errors import InputError, one_line
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import SPLIT_FOLDERS, FoundFile, check_least_classes

CSV = ".csv"
PATH, LABEL, SPLIT = "path", "label", "split"
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class TableSource:
    """A table of image files.

    Attributes:
        path: absolute path of the table.
    """

    path: Path

    @property
    def root(self) -> Path:
        """The table's folder."""
        return self.path.parent

    @property
    def name(self) -> str:
        """The table's name without its ending."""
        return self.path.stem

    def peek(self, *, least_classes: int = 2) -> tuple[list[str], list[FoundFile]]:
        """As `Source.peek`."""
        return find_listed(self.path, least_classes=least_classes)

    def find(
        self,
        *,
        least_classes: int = 2,
        report: Report = ignore_progress,  # noqa: ARG002 (it takes no time)
    ) -> tuple[list[str], list[FoundFile]]:
        """As `Source.find`."""
        return self.peek(least_classes=least_classes)


def find_listed(path: Path, *, least_classes: int = 2) -> tuple[list[str], list[FoundFile]]:
    """Lists the classes and the image files of a table, as `find_images` does of a folder.

    Classes are sorted: as numbers where all are integers, else as texts. Files come split by split, class by class, sorted
    by path. Those that are not there have a problem, and are quarantined like any bad file.

    Raises:
        InputError: the table is missing, empty, no table, lacks a column, has a value that can't be used, names a file
            twice with different labels or splits, or has too few classes.
    """
    columns = _read_columns(path)
    labels = _labels(columns[LABEL], is_typed=path.suffix.lower() != CSV)
    rows = _merge_rows(_paths(columns[PATH]), labels, _splits(columns[SPLIT]))
    are_integers = all(map(_INTEGER.fullmatch, set(labels)))
    classes = sorted(set(labels), key=lambda label: (int(label) if are_integers else 0, label))
    check_least_classes(classes, path, least_classes=least_classes)
    place = {label: number for number, label in enumerate(classes)}
    split_place = {None: 0} | {split: number for number, split in enumerate(SPLITS)}
    ordered = sorted(rows.items(), key=lambda row: (split_place[row[1][1]], place[row[1][0]], row[0]))
    return classes, [_found(path.parent, file, label, split) for file, (label, split) in ordered]


def _found(root: Path, path: str, label: str, split: str | None) -> FoundFile:
    missing = not exists(root / path)  # noqa: PTH110 (`Path.exists` raises for a name too long for any file system)
    return FoundFile(path, label, split, problem="missing: the table names it, and there is no such file" if missing else None)


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """The values of the columns that matter; those of CSV as texts, and nulls for a split where there is no such column."""
    is_csv = path.suffix.lower() == CSV
    if not path.exists():
        raise InputError(f"`SOURCE` must be an existing table; {str(path)!r} does not exist")
    if not path.is_file():
        raise InputError(f"`SOURCE` must be a table; {str(path)!r} is not a regular file")
    try:
        table = _read_csv(path) if is_csv else _read_parquet(path)
        columns = {name: table[name].to_pylist() for name in table.column_names}
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if path.stat().st_size == 0 or "Empty CSV" in str(error):
            raise InputError(f"`SOURCE` must have rows; {str(path)!r} is empty") from error
        kind = "CSV in UTF-8" if is_csv else "Parquet"
        raise InputError(f"`SOURCE` must be {kind}; {str(path)!r} can't be read ({one_line(error)})") from error
    if not columns[PATH]:
        raise InputError(f"`SOURCE` must have rows; {str(path)!r} has none below its header")
    return {SPLIT: [None] * len(columns[PATH])} | columns


def _read_csv(path: Path) -> pa.Table:
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parsing) as reader:
        names = _needed(path, reader.schema.names)
    # Other columns are left out, and nothing is guessed: `007` stays what it is.
    texts = pa.csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string()))
    return pa.csv.read_csv(path, parse_options=parsing, convert_options=texts)


def _read_parquet(path: Path) -> pa.Table:
    # Not `read_table`: it would take a folder called `label=cat` above the table for a column.
    with pq.ParquetFile(path) as file:
        return file.read(columns=_needed(path, file.schema_arrow.names))


def _needed(path: Path, names: Sequence[str]) -> list[str]:
    """The names of the columns that are read.

    Raises:
        InputError: one is missing or there twice; the columns that were found are listed.
    """
    if missing := [name for name in (PATH, LABEL) if name not in names]:
        found = ", ".join(map(repr, names[:_NAMES_SHOWN])) + (", ..." if len(names) > _NAMES_SHOWN else "")
        by_lower = {name.strip().lower(): name for name in reversed(names)}
        near = [by_lower[match] for name in missing for match in difflib.get_close_matches(name, by_lower, n=1)]
        hint = f"; rename {', '.join(map(repr, near))}?" if near else ""
        if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
            hint = "; separate columns by commas"
        raise InputError(
            f"`SOURCE` must have the columns `{PATH}` and `{LABEL}` (and may have `{SPLIT}`);"
            f" {str(path)!r} has no {' and no '.join(f'`{name}`' for name in missing)}, but {one_line(found)}{hint}"
        )
    needed = [name for name in (PATH, LABEL, SPLIT) if name in names]
    if twice := [name for name in needed if names.count(name) > 1]:
        raise InputError(f"`SOURCE` must have one column `{twice[0]}`; {str(path)!r} has {names.count(twice[0])} of them")
    return needed


def _labels(values: Sequence[Any], *, is_typed: bool) -> list[str]:
    """Labels as texts, integers in decimal.

    Args:
        values: as read.
        is_typed: the table says itself which values are texts. In CSV all are, and a number with a point or an exponent is
            what a program writes that meant something else.
    """
    for number, value in enumerate(values, start=1):
        is_text = isinstance(value, str) and value
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not (is_text or is_integer):
            _refuse(number, LABEL, "a text or an integer", value)
        if not is_typed and _is_fraction(value):
            _refuse(number, LABEL, "a text or an integer", float(value))
    return [str(value) for value in values]


def _is_fraction(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and _INTEGER.fullmatch(text) is None


def _paths(values: Sequence[Any]) -> list[str]:
    """Paths without what means nothing (`./`, `//`), so that a file has one name."""
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str) or not value or "\0" in value:
            _refuse(number, PATH, "the path of a file", value)
    return [PurePosixPath(value).as_posix() for value in values]


def _splits(values: Sequence[Any]) -> list[str | None]:
    """Splits by our names; None for those that are to be drawn."""
    for number, value in enumerate(values, start=1):
        if value not in (None, "", *SPLIT_FOLDERS):
            _refuse(number, SPLIT, f"{', '.join(SPLIT_FOLDERS)} or empty", value)
    return [SPLIT_FOLDERS[value] if value else None for value in values]


def _refuse(number: int, name: str, rule: str, value: object) -> NoReturn:
    kind = "" if value is None or isinstance(value, str) else f" ({type(value).__name__})"
    shown = "null" if value is None else one_line(repr(value), 80)
    raise InputError(f"`SOURCE`: `{name}` must be {rule}; row {number} (the header not counted) has {shown}{kind}")


def _merge_rows(paths: list[str], labels: list[str], splits: list[str | None]) -> dict[str, tuple[str, str | None]]:
    """Label and split of each file; rows that say the same of one file count once."""
    rows: dict[str, tuple[str, str | None]] = {}
    numbers: dict[str, int] = {}
    for number, (path, label, split) in enumerate(zip(paths, labels, splits, strict=True), start=1):
        first = numbers.setdefault(path, number)
        for what, earlier, later in zip(("label", "split"), rows.setdefault(path, (label, split)), (label, split), strict=True):
            if earlier != later:
                raise InputError(
                    f"`SOURCE` names {path!r} twice: with the {what} {earlier!r} in row {first} and {later!r} in row {number}"
                    " (the header not counted); keep one of them"
                )
    return rows
