"""Tables of image files: what they may say, what they may not, and that the answer names the row."""

from __future__ import annotations

import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.config import Recipe, SplitConfig
from pipelines.errors import InputError
from pipelines.slices import ingest_slice
from pipelines.sources.folder import check_class_counts, digest_files, find_images, read_unchanged
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.sources.table import find_listed
from pipelines.store.artifacts import artifact_path
from pipelines.store.index import read_index
from tests.sources.folders import write_classes, write_photo

Rows = dict[str, list[Any]]


def write_table(path: Path, columns: Rows) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def index(table: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    config = ingest_slice(Recipe.model_validate(changes), dataset="d")
    with TemporaryDirectory() as folder:
        home = Path(folder)
        result = ingest(home, table.parent, scan_source(home, table.parent, listed=find_listed(table)), config=config)
        return {row["path"]: row for row in read_index(artifact_path(home, result.artifact) / "index.parquet")}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_a_folder_s_files_lists_what_the_folder_does(photos: Path, suffix: str) -> None:
    classes, files = find_images(photos)
    shuffled = files[::-1]
    columns = {"path": [file.path for file in shuffled], "label": [file.label for file in shuffled], "id": list(range(24))}
    assert find_listed(write_table(photos / f"table{suffix}", columns)) == (classes, files)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            ["train"] * 11 + [None] + [None] * 12,
            r"\(images that say `train` stay there\): class 'cat' has 1 with an empty split and needs 2 \(validation, test\)$",
        ),
        (
            ["train"] * 10 + [None, "test"] + [None] + ["test"] * 11,
            r"stay there\): class 'dog' has 1 with an empty split and needs 2 \(train, validation\)$",
        ),
        (["train"] * 11 + ["val"] + ["train"] * 11 + [None], r"stay there\): class 'dog' has none in `validation`$"),
    ],
)
def test_too_few_open_rows_beside_those_that_say_train_are_said_before_any_file_is_read(
    photos: Path, splits: list[str | None], message: str
) -> None:
    paths = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.jpg"))]
    columns = {"path": paths, "label": [path.split("/")[0] for path in paths], "split": splits}
    classes, files = find_listed(write_table(photos / "table.csv", columns))
    with pytest.raises(InputError, match=message):
        check_class_counts(classes, files, fractions=Recipe().split)


def test_rows_that_say_train_stay_there_beside_test_rows_too(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 40, "b": 40})
    paths = [f"{label}/{number:03d}.jpg" for label in "ab" for number in range(40)]
    splits = ["train" if number < 30 else "test" if number < 33 else None for _ in "ab" for number in range(40)]
    rows = index(write_table(tmp_path / "t.parquet", {"path": paths, "label": [p[0] for p in paths], "split": splits}))
    found = {
        split: {rows[path]["split"] for path, said in zip(paths, splits, strict=True) if said == split} for split in splits
    }
    assert found == {"train": {"train"}, "test": {"test"}, None: {"train", "validation"}}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_splits_are_taken_under_any_of_their_names_and_may_be_left_open(photos: Path, suffix: str) -> None:
    given = ["train", "validation", "val", "test", "", None]
    columns = {"path": [f"dog/{n:03d}.jpg" for n in range(6)], "label": ["d"] * 6, "split": given}
    _, files = find_listed(write_table(photos / f"table{suffix}", columns), least_classes=1)
    assert [file.split for file in files].count(None) == 2
    assert {file.path[4:7]: file.split for file in files} == {
        "000": "train",
        "001": "validation",
        "002": "validation",
        "003": "test",
        "004": None,
        "005": None,
    }


def test_rows_that_say_train_stay_there_when_others_are_drawn(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 40, "b": 40})
    paths = [f"{label}/{number:03d}.jpg" for label in "ab" for number in range(40)]
    splits = ["train" if number < 20 else None for _ in "ab" for number in range(40)]
    rows = index(write_table(tmp_path / "t.parquet", {"path": paths, "label": [p[0] for p in paths], "split": splits}))
    assert {rows[path]["split"] for path, split in zip(paths, splits, strict=True) if split} == {"train"}
    assert {rows[path]["split"] for path, split in zip(paths, splits, strict=True) if not split} == {
        "train",
        "validation",
        "test",
    }


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_integers_are_classes_in_the_order_of_numbers(tmp_path: Path, suffix: str) -> None:
    numbers = [10, 9, -1, 0, 100]
    table = write_table(tmp_path / f"table{suffix}", {"path": list("abcde"), "label": numbers})
    assert find_listed(table)[0] == ["-1", "0", "9", "10", "100"]


def test_texts_are_left_as_they_are(tmp_path: Path) -> None:
    labels = ["007", "1.5.0", "true", "2024-01-31", "NA", "null", "no, thanks", ' "so" ', "line\nbreak", "🐱", "nan"]
    table = write_table(tmp_path / "t.csv", {"path": [str(number) for number in range(len(labels))], "label": labels})
    assert find_listed(table)[0] == sorted(labels)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\r\na.jpg,é\r\nb.jpg,f\r\n".encode("utf-8-sig"))
    assert find_listed(tmp_path / "t.csv")[0] == ["f", "é"]


def test_categories_are_texts_or_integers_too(tmp_path: Path) -> None:
    columns = {"path": pa.array(["a", "b"]).dictionary_encode(), "label": pa.array([3, 20]).dictionary_encode()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert find_listed(tmp_path / "t.parquet")[0] == ["3", "20"]


def test_a_folder_above_the_table_is_no_column_of_it(tmp_path: Path) -> None:
    (tmp_path / "label=x").mkdir()
    table = write_table(tmp_path / "label=x" / "t.parquet", {"path": ["a"]})
    with pytest.raises(InputError, match="has no `label`"):
        find_listed(table)


def test_files_lie_anywhere_and_are_called_anything(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    names = ["up.jpg", "no ending", 'emoji 🐱, "quoted".png', "new\nline.jpg", "absolute.jpg", "deep/er.jpeg"]
    (tmp_path / "deep").mkdir()
    for seed, name in enumerate(names):
        write_photo(tmp_path / name, seed=seed)
    paths = [str(tmp_path / name) if name == "absolute.jpg" else f"../{name}" for name in names]
    table = write_table(tmp_path / "tables" / "t.csv", {"path": paths, "label": ["a", "b"] * 3})
    files = digest_files(table.parent, find_listed(table)[1])
    assert sorted(file.path for file in files) == sorted(paths)
    assert all(file.problem is None for file in files)
    for file in files:
        assert read_unchanged(table.parent, file.path, file.sha256) == (tmp_path / "tables" / file.path).read_bytes()


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    paths = ["a/000.jpg", "b/000.jpg", "./a//000.jpg", "a/000.jpg"]
    table = write_table(tmp_path / "t.csv", {"path": paths, "label": ["a", "b", "a", "a"]})
    assert [file.path for file in find_listed(table)[1]] == ["a/000.jpg", "b/000.jpg"]


def test_few_missing_files_are_named_and_the_run_goes_on_but_many_stop_it(photos: Path) -> None:
    paths = [file.path for file in find_images(photos)[1]]
    gone = ["cat/gone.jpg", "/no/such/file.jpg", "dog/" + "x" * 300]
    columns = {"path": paths + gone, "label": [*(path[:3] for path in paths), "cat", "cat", "dog"]}
    rows = index(write_table(photos / "t.csv", columns), max_bad_fraction=0.2)
    bad = {path: row["reason"] for path, row in rows.items() if row["status"] == "bad"}
    assert bad.keys() == set(gone)
    assert all(reason.startswith("missing") for reason in bad.values())
    with pytest.raises(InputError, match=r"3 of 27 files are bad") as caught:
        index(photos / "t.csv", max_bad_fraction=0.1)
    assert all(f"  {path!r}: missing" in str(caught.value) for path in gone)


def test_a_class_without_files_that_are_there_is_refused(photos: Path) -> None:
    columns = {"path": ["cat/000.jpg", "cat/001.jpg", "cat/002.jpg", "gone"], "label": ["cat"] * 3 + ["dog"]}
    classes, files = find_listed(write_table(photos / "t.csv", columns))
    with pytest.raises(InputError, match="class 'dog' has 0 and needs 3"):
        check_class_counts(classes, files, fractions=SplitConfig())


REFUSED_VALUES: list[tuple[Rows, str]] = [
    ({"path": ["a", "b"], "label": [1.0, 2.5]}, r"`label` must be a text or an integer; row 1 .* has 1\.0 \(float\)"),
    ({"path": ["a", "b"], "label": ["x", None]}, r"`label` must be .* row 2 .* has null"),
    ({"path": ["a", "b"], "label": ["x", ""]}, r"`label` must be .* row 2 .* has ''"),
    ({"path": ["a", "b"], "label": [1, None]}, r"`label` must be .* row 2 .* has null"),
    ({"path": ["a", "b"], "label": [None, None]}, r"`label` must be .* row 1 .* has null"),
    ({"path": ["a", "b"], "label": [True, False]}, r"`label` must be .* row 1 .* has True \(bool\)"),
    ({"path": ["a"], "label": [datetime.date(2024, 1, 31)]}, r"row 1 .* has datetime\.date\(2024, 1, 31\) \(date\)"),
    ({"path": ["a"], "label": [["x", "y"]]}, r"row 1 .* has \['x', 'y'\] \(list\)"),
    ({"path": ["a"], "label": [{"x": 1}]}, r"row 1 .* has \{'x': 1\} \(dict\)"),
    ({"path": ["a"], "label": [b"x"]}, r"row 1 .* has b'x' \(bytes\)"),
    ({"path": ["a", None], "label": ["x", "y"]}, r"`path` must be the path of a file; row 2 .* has null"),
    ({"path": [1, 2], "label": ["x", "y"]}, r"`path` must be the path of a file; row 1 .* has 1 \(int\)"),
    ({"path": ["a", "b\0c"], "label": ["x", "y"]}, r"`path` must be .* row 2 .* has 'b\\x00c'"),
    ({"path": ["a", "b"], "label": ["x", "y"], "split": ["train", "dev"]}, r"`split` must be train, .* row 2 .* has 'dev'"),
    ({"path": ["a", "b"], "label": ["x", "y"], "split": [0, 1]}, r"`split` must be train, .* row 1 .* has 0 \(int\)"),
    ({"path": ["a", "b", "a"], "label": ["x", "y", "z"]}, r"'a' twice: .* label 'x' in row 1 and 'z' in row 3"),
    (
        {"path": ["a", "a"], "label": ["x", "x"], "split": ["train", "test"]},
        r"'a' twice: .* split 'train' in row 1 and 'test' in row 2",
    ),
    ({"path": ["a", "b"], "label": ["x", "x"]}, "at least two classes; .* has only 'x'"),
]


@pytest.mark.parametrize(("columns", "message"), REFUSED_VALUES)
def test_a_value_that_can_not_be_used_is_refused_with_its_row(tmp_path: Path, columns: Rows, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_listed(write_table(tmp_path / "t.parquet", columns))
    assert "\n" not in str(caught.value)


REFUSED_TEXTS: list[tuple[str, bytes, str]] = [
    ("t.csv", b"", "must have rows; .* is empty"),
    ("t.csv", b"path,label", "must have rows; .* is empty"),
    ("t.csv", b"path,label\n", "must have rows; .* has none below its header"),
    ("t.csv", b"path,label\na,1.0\n", r"`label` must be .* row 1 .* has 1\.0 \(float\)"),
    ("t.csv", b"path,label\na,x\nb,1e3\n", r"`label` must be .* row 2 .* has 1000\.0 \(float\)"),
    ("t.csv", b"path,label\na,\n", r"`label` must be .* row 1 .* has ''"),
    ("t.csv", b"path,label\na,x,y\n", "can't be read .*Expected 2 columns, got 3"),
    ("t.csv", b'path,label\n"a,x\n', "can't be read"),
    ("t.csv", "path,label\nä,x\n".encode("latin-1"), "must be CSV in UTF-8; .* can't be read"),
    ("t.csv", "path,label\na,x\n".encode("utf-16"), "must be CSV in UTF-8; .* can't be read"),
    ("t.csv", b"\x89PNG\r\n\x1a\n", "must be CSV in UTF-8; .* can't be read"),
    ("t.csv", b"File,Label\na,x\n", "has no `path` and no `label`, but 'File', 'Label'; rename .*'Label'"),
    ("t.csv", b"path;label\na;x\n", "has no `path` and no `label`, but 'path;label'; separate columns by commas"),
    ("t.csv", b"path,label,label\na,x,y\n", "must have one column `label`; .* has 2 of them"),
    ("t.parquet", b"", "must have rows; .* is empty"),
    ("t.parquet", b"path,label\na,x\n", "must be Parquet; .* can't be read"),
]


@pytest.mark.parametrize(("name", "contents", "message"), REFUSED_TEXTS)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, contents: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError, match=message) as caught:
        find_listed(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    columns: Rows = {f"column {number}": [1] for number in range(200)}
    with pytest.raises(InputError, match="no `path` and no `label`, but 'column 0'") as caught:
        find_listed(write_table(tmp_path / "t.parquet", columns))
    assert len(str(caught.value)) < 600


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be an existing table; .* does not exist"):
        find_listed(tmp_path / "t.csv")
