"""TensorFlow Datasets as a source. Imports TensorFlow and TFDS only where a data set has still to be written out.

`tfds:NAME` is written out once, as the image files that TFDS keeps in its records, into a folder of the home. From then on
that folder is the source, until another version is prepared in `data_dir` or a file of it is missing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from filelock import FileLock

from pipelines.config import TfdsConfig, TfdsSplits
from pipelines.errors import InputError
from pipelines.progress import Report, ignore_progress
from pipelines.sources.folder import FoundFile, check_least_classes
from pipelines.sources.image_folder import ImageFolderSource, choose_splits
from pipelines.store.artifacts import file_digest, read_json, scratch_folder, write_json

if TYPE_CHECKING:
    from pipelines.sources.tfds_builder import DataSet

IMAGE_FOLDER = "image_folder"
DEFAULT_DATA_DIR = "~/tensorflow_datasets"  # TFDS's own
FILES, WRITTEN = "files.parquet", "written.json"
_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>[\w+.-]+))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class DataSetName:
    """NAME[/CONFIG][:VERSION]; a version may have `*` in place of numbers."""

    name: str
    config: str | None
    version: str | None

    def __str__(self) -> str:
        config, version = self.config and f"/{self.config}", self.version and f":{self.version}"
        return f"{self.name}{config or ''}{version or ''}"


def open_tfds(text: str, *, home: Path, config: TfdsConfig) -> TfdsSource | ImageFolderSource:
    """The source of what follows `tfds:`; nothing is read yet.

    Raises:
        InputError: it can't be a name.
    """
    data_dir = Path(config.data_dir or DEFAULT_DATA_DIR).expanduser().absolute()
    if text == IMAGE_FOLDER:
        if config.data_dir is None:
            raise InputError("`SOURCE` tfds:image_folder needs `tfds.data_dir`, the folder of SPLIT/CLASS/FILE")
        return ImageFolderSource(data_dir, config.splits)
    match = _NAME.fullmatch(text)
    if match is None:
        raise InputError(f"`SOURCE` must be tfds:NAME, tfds:NAME/CONFIG or either with :1.2.3; received {'tfds:' + text!r}")
    return TfdsSource(
        DataSetName(match["name"], match["config"], match["version"]), data_dir, config.splits, config.download, home
    )


@dataclass(frozen=True)
class TfdsSource:
    """A data set of TFDS.

    Attributes:
        asked: as the user wrote it.
        data_dir: absolute path of the folder that TFDS keeps data sets in.
        splits: as in the recipe.
        download: whether it may be fetched and prepared.
        home: absolute path of the home.
    """

    asked: DataSetName
    data_dir: Path
    splits: TfdsSplits
    download: bool
    home: Path

    @property
    def root(self) -> Path:
        """The folder that it is written out to, named by all that was asked for."""
        asked = f"{self.asked}\0{self.data_dir}\0{self.splits.model_dump_json()}"
        digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
        return self.home / "tfds" / f"{re.sub(r'[^0-9A-Za-z_.]', '-', str(self.asked))}-{digest}"

    @property
    def name(self) -> str:
        """Name and config; the version is left out, so that an image keeps its split in the next one."""
        return f"{self.asked.name}/{self.asked.config}" if self.asked.config else self.asked.name

    def peek(self, *, least_classes: int = 2) -> tuple[list[str], list[FoundFile]] | None:
        """As `Source.peek`: where nothing was written out yet, checks what TFDS knows without reading an example."""
        if self._is_current():
            return self._listing(least_classes)
        self._open()
        return None

    def find(self, *, least_classes: int = 2, report: Report = ignore_progress) -> tuple[list[str], list[FoundFile]]:
        """As `Source.find`: writes the images out first, where that was not done yet."""
        if not self._is_current():
            data_set = self._open()
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root.with_name(f"{self.root.name}.lock")):
                if not self._is_current():
                    self._write(data_set, report)
        return self._listing(least_classes)

    def _is_current(self) -> bool:
        """Whether it was written out, from what is prepared now, and all of it is there; `data_dir` may be emptied since."""
        try:
            written_from = read_json(self.root / WRITTEN)["fingerprint"]
            paths = pq.read_table(self.root / FILES, columns=["path"])["path"].to_pylist()
        except (OSError, ValueError, KeyError, TypeError):
            return False
        prepared = find_prepared(self.data_dir, self.asked)
        return _all_there(self.root, paths) and (prepared is None or bool(written_from == fingerprint(prepared)))

    def _open(self) -> DataSet:
        """What TFDS knows of it, once that is known to be of use."""
        prepared = find_prepared(self.data_dir, self.asked)
        if prepared is None and not self.download:
            there = sorted({path.relative_to(self.data_dir).parts[0] for path in _prepared_folders(self.data_dir)})
            raise InputError(
                f"`SOURCE` tfds:{self.asked} is not prepared in {str(self.data_dir)!r}"
                f" (there: {', '.join(there) or 'nothing'}), and `tfds.download` is false"
            )
        from pipelines.sources.tfds_builder import open_data_set

        data_set = open_data_set(self.asked, data_dir=self.data_dir, prepared=prepared)
        if prepared is None:
            data_set.check_reachable()
        else:
            data_set.check_splits(choose_splits(data_set.split_names, self.splits))
        return data_set

    def _write(self, data_set: DataSet, report: Report) -> None:
        data_set.prepare()
        splits = choose_splits(data_set.split_names, self.splits)
        data_set.check_splits(splits)
        with scratch_folder(self.home) as scratch:
            new = scratch / "new"
            new.mkdir()
            classes = data_set.write(new, splits, files=FILES, report=report)
            written = {"data_set": data_set.full_name, "fingerprint": fingerprint(data_set.folder), "classes": classes}
            write_json(new / WRITTEN, written)
            if self.root.exists():
                self.root.rename(scratch / "old")
            new.rename(self.root)

    def _listing(self, least_classes: int) -> tuple[list[str], list[FoundFile]]:
        classes = read_json(self.root / WRITTEN)["classes"]
        check_least_classes(classes, f"tfds:{self.asked}", least_classes=least_classes)
        table = pq.read_table(self.root / FILES)
        return classes, list(map(FoundFile, *(table[name].to_pylist() for name in ("path", "label", "split"))))


def _all_there(root: Path, paths: Sequence[str]) -> bool:
    """Whether files PART/NAME are there, by listing their folders: to ask for each would take longer."""
    return {f"{Path(where).name}/{name}" for where, _, names in os.walk(root) for name in names}.issuperset(paths)


def find_prepared(data_dir: Path, asked: DataSetName) -> Path | None:
    """The folder of a prepared data set, as TFDS would choose it: the highest version that matches.

    Where no config is asked for: the default, where TFDS wrote down which that is, else the only one.
    """
    base = data_dir / asked.name
    folders = [path for path in _prepared_folders(data_dir, asked.name) if _matches(path.name, asked.version)]
    config = asked.config
    if config is None and not any(path.parent == base for path in folders):
        configs = {path.parent.name for path in folders}
        try:
            config = read_json(base / ".config" / "metadata.json")["default_config_name"]
        except (OSError, ValueError, KeyError):
            config = configs.pop() if len(configs) == 1 else None
    folders = [path for path in folders if path.parent == (base / config if config else base)]
    return max(folders, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def fingerprint(prepared: Path) -> str:
    """Tells one prepared data set from another: a digest of its name, version and the sizes of its records."""
    return file_digest(prepared / "dataset_info.json")


def _prepared_folders(data_dir: Path, name: str = "*") -> list[Path]:
    """NAME/VERSION and NAME/CONFIG/VERSION below a folder."""
    found = [path.parent for depth in ("*", "*/*") for path in data_dir.glob(f"{name}/{depth}/features.json")]
    return [path for path in found if _VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()]


def _matches(version: str, wanted: str | None) -> bool:
    pairs = zip(version.split("."), (wanted or "*.*.*").split("."), strict=True)
    return all(want in ("*", have) for have, want in pairs)
