"""What every kind of source must give, run over all kinds; and how SOURCE's text tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.config import Recipe, TfdsConfig
from pipelines.slices import ingest_slice
from pipelines.sources.folder import digest_files
from pipelines.sources.image_folder import ImageFolderSource
from pipelines.sources.ingest import ingest
from pipelines.sources.scan import scan_source
from pipelines.sources.source import FolderSource, Source, open_source
from pipelines.sources.table import TableSource
from pipelines.sources.tfds import TfdsSource
from tests.sources.drawn_tfds import DrawnOneSplit, prepare
from tests.sources.folders import write_classes


def folder(place: Path) -> Source:
    return FolderSource(write_classes(place / "photos", {"ant": 12, "bee": 12}))


def table(place: Path, suffix: str) -> Source:
    root = write_classes(place / "photos", {"ant": 12, "bee": 12})
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    columns = pa.table({"path": paths, "label": [path[:3] for path in paths]})
    if suffix == ".csv":
        pa.csv.write_csv(columns, root / "t.csv")
    else:
        pq.write_table(columns, root / "t.parquet")
    return open_source(str(root / f"t{suffix}"), home=place / "home", tfds=TfdsConfig())


def image_folder(place: Path) -> Source:
    write_classes(place / "photos" / "train", {"ant": 12, "bee": 12})
    return open_source("tfds:image_folder", home=place, tfds=TfdsConfig(data_dir=str(place / "photos")))


def tfds(place: Path) -> Source:
    config = TfdsConfig(data_dir=str(prepare(place / "data", DrawnOneSplit)))
    return open_source("tfds:drawn_one_split", home=place / "home", tfds=config)


KINDS: dict[str, Callable[[Path], Source]] = {
    "folder": folder,
    "csv": lambda place: table(place, ".csv"),
    "parquet": lambda place: table(place, ".parquet"),
    "image_folder": image_folder,
    "tfds": tfds,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_an_index(tmp_path: Path, kind: str) -> None:
    source = KINDS[kind](tmp_path)
    classes, found = source.find()
    assert source.peek() == source.find() == (classes, found)
    assert source.name
    assert source.root.is_absolute()
    assert len(classes) == 2
    assert {file.label for file in found} == set(classes)
    assert all(file.split is None and file.problem is None for file in found)
    digested = digest_files(source.root, found)
    assert len({file.sha256 for file in digested}) == 24
    home = tmp_path / "home"
    listing = scan_source(home, source.root, listed=source.find())
    index = ingest(home, source.root, listing, config=ingest_slice(Recipe(), dataset=source.name))
    assert index.classes == tuple(classes)
    assert sum(index.examples.values()) == 24
    assert index.bad_files == 0
    assert scan_source(home, source.root, listed=source.find()) == listing


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("photos", FolderSource, "photos"),
        ("./tfds:photos", FolderSource, "tfds:photos"),
        ("deep/..", FolderSource, None),
        ("labels.csv", TableSource, "labels"),
        ("/data/Train.PARQUET", TableSource, "Train"),
        ("folder.csv", FolderSource, "folder.csv"),
        ("labels.txt", FolderSource, "labels.txt"),
        ("tfds:mnist", TfdsSource, "mnist"),
        ("tfds:emnist/letters:3.1.*", TfdsSource, "emnist/letters"),
        ("tfds:image_folder", ImageFolderSource, "photos"),
    ],
)
def test_the_text_tells_the_kind_and_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[object], name: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    source = open_source(text, home=tmp_path, tfds=TfdsConfig(data_dir="photos"))
    assert isinstance(source, kind)
    assert source.name == (name or tmp_path.name)
    assert source.root.is_absolute()
