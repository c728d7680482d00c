"""`tfds:image_folder`: what TFDS's own `ImageFolder` finds, read in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from pipelines.config import TfdsConfig, TfdsSplits
from pipelines.errors import InputError
from pipelines.sources.image_folder import ImageFolderSource, choose_splits
from pipelines.sources.tfds import open_tfds
from tests.sources.folders import write_classes


def write_splits(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_classes(root / name, {"b": 2 + number, "a": 1})
    return root


def test_files_labels_and_classes_are_those_of_tfds(tmp_path: Path) -> None:
    root = write_splits(tmp_path, "training", "holdout", "unused")
    theirs = tfds.folder_dataset.ImageFolder(str(root))
    splits = TfdsSplits(train="training", test="holdout")
    classes, files = ImageFolderSource(root, splits).find()
    assert classes == theirs.info.features["label"].names
    for split, name in (("train", "training"), ("test", "holdout")):
        examples = theirs.as_dataset(split=name).as_numpy_iterator()
        expected = {(example["image/filename"].decode(), classes[example["label"]]) for example in examples}
        assert {(str(root / file.path), file.label) for file in files if file.split == split} == expected


def test_split_folders_with_the_usual_names_need_no_mapping(tmp_path: Path) -> None:
    source = open_tfds(
        "image_folder", home=tmp_path / "home", config=TfdsConfig(data_dir=str(write_splits(tmp_path, "train", "val")))
    )
    assert [file.split for file in source.find()[1]] == ["train"] * 3 + ["validation"] * 4
    assert source.name == tmp_path.name
    assert source.peek() == source.find()


@pytest.mark.parametrize(
    ("available", "wanted", "expected"),
    [
        (["train"], {}, {None: "train"}),
        (["all"], {}, {None: "all"}),
        (["test", "train"], {}, {"train": "train", "test": "test"}),
        (["test", "train", "unsupervised", "val"], {}, {"train": "train", "validation": "val", "test": "test"}),
        (["val", "validation", "train"], {}, {"train": "train", "validation": "validation"}),
        (["test", "train"], {"train": "train"}, {None: "train"}),
        (["test", "train"], {"test": "test"}, {"test": "test"}),
        (["test", "train"], {"test": "train[80%:]", "train": "train[:80%]"}, {"train": "train[:80%]", "test": "train[80%:]"}),
    ],
)
def test_which_splits_are_taken(available: list[str], wanted: dict[str, str], expected: dict[str | None, str]) -> None:
    chosen = choose_splits(available, TfdsSplits.model_validate(wanted))
    assert list(chosen.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("names", "splits", "message"),
    [
        (["one", "two"], {}, "`tfds.splits` must say which to take, .* there are: one, two"),
        ([], {}, "there are: none"),
        (["train", "test"], {"train": "train[:80%]"}, r"`tfds.splits` names 'train\[:80%\]'; .* has test, train"),
    ],
)
def test_what_can_not_be_told_is_asked_for(tmp_path: Path, names: list[str], splits: dict[str, str], message: str) -> None:
    source = ImageFolderSource(write_splits(tmp_path, *names), TfdsSplits.model_validate(splits))
    with pytest.raises(InputError, match=message):
        source.find()


def test_its_folder_must_be_named_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tfds:image_folder needs `tfds.data_dir`"):
        open_tfds("image_folder", home=tmp_path, config=TfdsConfig())
    with pytest.raises(InputError, match=r"`tfds.data_dir` must be an existing folder; received '/no/such'"):
        open_tfds("image_folder", home=tmp_path, config=TfdsConfig(data_dir="/no/such")).find()
