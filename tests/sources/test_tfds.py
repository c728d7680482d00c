"""TFDS data sets: the bytes, classes and splits that come out of them, once, and what can't be used."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.config import TfdsConfig
from pipelines.errors import InputError, RunError
from pipelines.sources.folder import FoundFile
from pipelines.sources.tfds import TfdsSource, find_prepared, open_tfds
from pipelines.sources.tfds_builder import DataSet
from tests.sources.drawn_tfds import (
    USED,
    DrawnAnimals,
    DrawnConfigs,
    DrawnNewer,
    DrawnOneSplit,
    DrawnSentences,
    DrawnUnlabelled,
    photo,
    prepare,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("tensorflow_datasets"))


def opened(text: str, data_dir: Path, home: Path, **options: Any) -> TfdsSource:
    config = TfdsConfig.model_validate({"data_dir": str(data_dir), "download": False, **options})
    source = open_tfds(text, home=home, config=config)
    assert isinstance(source, TfdsSource)
    return source


def contents(source: TfdsSource, files: list[FoundFile]) -> dict[str, tuple[str, str | None]]:
    """Label and split of each image by the digest of its bytes."""
    return {hashlib.sha256((source.root / file.path).read_bytes()).hexdigest(): (file.label, file.split) for file in files}


def drawn(counts: dict[str, int], splits: dict[str, str | None]) -> dict[str, tuple[str, str | None]]:
    return {
        hashlib.sha256(photo(split, label, number)).hexdigest(): (label, splits[split])
        for split, count in counts.items()
        for label in USED
        for number in range(count)
    }


def test_images_come_out_byte_for_byte_under_their_classes_and_splits(
    data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened("drawn_animals", data_dir, tmp_path)
    assert source.peek() is None
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING):
        classes, files = source.find()
    assert classes == USED  # in the data set's own order, without the one that has no image
    assert "no image is of class 'no such beast'" in caplog.text
    assert contents(source, files) == drawn(DrawnAnimals.counts, {"train": "train", "test": "test"})
    assert [file.split for file in files] == ["train"] * 16 + ["test"] * 8
    assert {Path(file.path).suffix for file in files} == {".jpg", ".png"}
    assert source.peek() == (classes, files)
    assert source.name == "drawn_animals"


def test_what_was_written_out_is_used_without_tensorflow_or_tfds(data_dir: Path, tmp_path: Path) -> None:
    expected = opened("drawn_animals", data_dir, tmp_path).find()
    script = f"""
import sys
from pathlib import Path
from pipelines.config import TfdsConfig
from pipelines.sources.source import open_source
config = TfdsConfig(data_dir={str(data_dir)!r}, download=False)
source = open_source("tfds:drawn_animals", home=Path({str(tmp_path)!r}), tfds=config)
assert source.peek() == source.find()
print(len(source.find()[1]))
assert not {{"tensorflow", "tensorflow_datasets"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(expected[1])}\n", done.stderr


def test_it_is_used_after_the_data_set_was_removed_too(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path / "data")
    source = opened("drawn_animals", data_dir, tmp_path / "home")
    found = source.find()
    shutil.rmtree(data_dir)
    assert source.find() == found


@pytest.mark.parametrize("name", ["files.parquet", "written.json", "train/000003.jpg", "test/000000.png"])
def test_a_part_that_was_removed_is_written_again(data_dir: Path, tmp_path: Path, name: str) -> None:
    source = opened("drawn_animals", data_dir, tmp_path)
    found = source.find()
    (source.root / name).unlink()
    assert source.peek() is None
    assert source.find() == found
    assert all((source.root / file.path).is_file() for file in found[1])


def test_another_version_is_written_out_in_its_place(tmp_path: Path) -> None:
    data_dir, home = prepare(tmp_path / "data"), tmp_path / "home"
    assert len(opened("drawn_animals", data_dir, home).find()[1]) == 24
    prepare(data_dir, DrawnNewer)
    source = opened("drawn_animals", data_dir, home)
    assert contents(source, source.find()[1]) == drawn(DrawnNewer.counts, {"train": "train", "test": "test"})
    assert len(opened("drawn_animals:1.0.0", data_dir, home).find()[1]) == 24
    assert len(opened("drawn_animals:1.*.*", data_dir, home).find()[1]) == 26
    assert not list((home / "tmp").iterdir())


def test_one_split_is_all_drawn_whatever_its_name(tmp_path: Path) -> None:
    source = opened("drawn_one_split", prepare(tmp_path / "data", DrawnOneSplit), tmp_path / "home")
    assert contents(source, source.find()[1]) == drawn(DrawnOneSplit.counts, {"everything": None})


def test_splits_are_mapped_in_tfds_s_own_notation(data_dir: Path, tmp_path: Path) -> None:
    splits = {"train": "train[:75%]", "validation": "train[75%:]", "test": "test[:2]"}
    source = opened("drawn_animals", data_dir, tmp_path, splits=splits)
    _, files = source.find(least_classes=1)
    assert [file.split for file in files] == ["train"] * 12 + ["validation"] * 4 + ["test"] * 2
    assert len(contents(source, files)) == 18
    merged = opened("drawn_animals", data_dir, tmp_path, splits={"train": "train+test"})
    assert [file.split for file in merged.find()[1]] == [None] * 24
    assert merged.root != source.root


def test_a_config_is_chosen_as_tfds_does(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path / "data", DrawnConfigs, config="large")
    home = tmp_path / "home"
    assert len(opened("drawn_configs/large", data_dir, home).find()[1]) == 24
    with pytest.raises(InputError, match="not prepared"):
        opened("drawn_configs", data_dir, home).find()  # the default is `small`, the first
    prepare(data_dir, DrawnConfigs, config="small")
    source = opened("drawn_configs", data_dir, home)
    prepared = find_prepared(data_dir, source.asked)
    assert prepared is not None
    assert prepared.parent.name == "small"
    assert opened("drawn_configs/large:1.0.0", data_dir, home).name == "drawn_configs/large"


def test_a_data_set_that_tfds_can_make_is_prepared(tmp_path: Path) -> None:
    source = opened("drawn_animals", tmp_path / "data", tmp_path / "home", download=True)
    assert source.peek() is None
    assert not (tmp_path / "data" / "drawn_animals").exists()
    assert len(source.find()[1]) == 24
    assert (tmp_path / "data" / "drawn_animals" / "1.0.0" / "features.json").exists()


def test_a_server_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    # Nothing listens there.
    unreachable = SimpleNamespace(data_dir=str(tmp_path / "1.0.0"), url_infos={"http://localhost:1/data.tar": None})
    data_set = DataSet(unreachable, "tfds:unreachable", "image", "label")
    with pytest.raises(InputError, match=r"tfds:unreachable is not prepared in .* can't be downloaded: .* does not answer"):
        data_set.check_reachable()


def test_a_data_set_whose_server_does_not_answer_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrawnAnimals, "url_infos", {"http://localhost:1/data.tar": None})
    source = opened("drawn_animals", tmp_path / "data", tmp_path / "home", download=True)
    for look in (source.peek, source.find):
        with pytest.raises(
            InputError, match=r"tfds:drawn_animals is not prepared in .* can't be downloaded: .* does not answer"
        ):
            look()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_preparing_is_said_as_such(tmp_path: Path) -> None:
    def download_and_prepare() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    full = SimpleNamespace(data_dir=str(tmp_path), download_and_prepare=download_and_prepare)
    with pytest.raises(RunError, match="no space left on the device"):
        DataSet(full, "tfds:full", "image", "label").prepare()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("drawn_animal", {}, r"tfds:drawn_animal is not prepared in .* \(there: drawn_animals\), and `tfds.download` is false"),
        ("drawn_animals:3.0.0", {}, "tfds:drawn_animals:3.0.0 is not prepared"),
        ("drawn_animals/config", {}, "tfds:drawn_animals/config is not prepared"),
        ("drawn_animal", {"download": True}, "no such data set is known to TFDS .* did you mean drawn_animals"),
        ("mnits", {"download": True}, "no such data set is known to TFDS .* did you mean mnist"),
        ("drawn_animals:3.0.0", {"download": True}, "tfds:drawn_animals:3.0.0 can't be had: .*3.0.0"),
        ("drawn_configs/huge", {"download": True}, "tfds:drawn_configs/huge can't be had: .*huge"),
        ("drawn_animals", {"splits": {"train": "learn"}}, r"has no split 'learn': .*\['train', 'test'\]"),
        ("drawn_animals", {"splits": {"train": "train[:x]"}}, r"has no split 'train\[:x\]'"),
        ("drawn_animals", {"splits": {"train": "train", "test": "train[90%:]"}}, "must not overlap; 'train' and 'train.90%:.'"),
        ("drawn_animals", {"splits": {"train": "train", "test": "test[:0]"}}, r"'test\[:0\]' of tfds:drawn_animals is empty"),
    ],
)
def test_what_can_not_be_had_is_refused_before_anything_is_written(
    data_dir: Path, tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    source = opened(text, data_dir, tmp_path, **options)
    for look in (source.peek, source.find):
        with pytest.raises(InputError, match=message) as caught:
            look()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_images_is_refused_with_its_features(tmp_path: Path) -> None:
    source = opened("drawn_sentences", prepare(tmp_path / "data", DrawnSentences), tmp_path / "home")
    with pytest.raises(InputError, match=r"one image and one class label .* has label \(ClassLabel\), text \(Text\)"):
        source.find()


def test_images_without_a_class_are_refused(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path / "data", DrawnUnlabelled)
    with pytest.raises(InputError, match="split 'test' has images without a class"):
        opened("drawn_unlabelled", data_dir, tmp_path / "home").find()
    assert not list((tmp_path / "home").glob("tfds/*/*"))
    assert len(opened("drawn_unlabelled", data_dir, tmp_path / "home", splits={"train": "train"}).find()[1]) == 16


def test_a_damaged_record_is_said_in_one_line(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path / "data")
    (record,) = data_dir.glob("drawn_animals/1.0.0/*train.tfrecord*")
    record.write_bytes(record.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"tfds:drawn_animals can't be read .'train'.: DataLossError") as caught:
        opened("drawn_animals", data_dir, tmp_path / "home").find()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a b", "a/b/c", "huggingface:mnist", "mnist:1", "../x", "mnist\n"])
def test_what_can_be_no_name_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"must be tfds:NAME, tfds:NAME/CONFIG or either with :1.2.3; received {'tfds:' + text!r}")
    ):
        open_tfds(text, home=tmp_path, config=TfdsConfig())
