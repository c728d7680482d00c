"""Small TFDS data sets of drawn photos, prepared without a network; importing this registers them with TFDS."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tests.images import draw_photo, encode

# Not sorted, not fit for a folder's name, and one without an image.
CLASSES = ["zebra/plain", "no such beast", "ant"]
USED = ["zebra/plain", "ant"]


def photo(split: str, label: str, number: int) -> bytes:
    """The file of one example: JPEG, or a grey PNG for odd numbers."""
    image = draw_photo(40, 32, zlib.crc32(f"{split} {label} {number}".encode()))
    return encode(image.convert("L"), "PNG") if number % 2 else encode(image, "JPEG", quality=95)


def prepare(data_dir: Path, builder: type[Any] | None = None, **options: Any) -> Path:
    """Prepares a data set (`DrawnAnimals` by default) as a user would have; returns `data_dir`."""
    (builder or DrawnAnimals)(data_dir=str(data_dir), **options).download_and_prepare()
    return data_dir


class DrawnAnimals(tfds.core.GeneratorBasedBuilder):
    """Photos with a train and a test split."""

    VERSION = tfds.core.Version("1.0.0")
    counts: ClassVar[dict[str, int]] = {"train": 8, "test": 4}

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=CLASSES),
            "mask": tfds.features.Image(shape=(4, 4, 1)),
            "title": tfds.features.Text(),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for label in USED:
            for number in range(self.counts[split]):
                yield (
                    f"{label} {number}",
                    {
                        "image": io.BytesIO(photo(split, label, number)),
                        "label": label,
                        "mask": np.zeros((4, 4, 1), np.uint8),
                        "title": "a photo",
                    },
                )


class DrawnOneSplit(DrawnAnimals):
    """Photos in one split with a name of its own."""

    VERSION = tfds.core.Version("2.0.0")
    counts: ClassVar[dict[str, int]] = {"everything": 12}


class DrawnNewer(DrawnAnimals, skip_registration=True):
    """`DrawnAnimals` in its next version."""

    name = "drawn_animals"
    VERSION = tfds.core.Version("1.1.0")
    counts: ClassVar[dict[str, int]] = {"train": 9, "test": 4}


class DrawnConfigs(DrawnAnimals):
    """Photos with two configs."""

    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name="small", version=tfds.core.Version("1.0.0")),
        tfds.core.BuilderConfig(name="large", version=tfds.core.Version("1.0.0")),
    ]


class DrawnUnlabelled(DrawnAnimals):
    """A test split without labels, as of a competition."""

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, example in super()._generate_examples(split):
            yield key, example | ({"label": -1} if split == "test" else {})


class DrawnSentences(tfds.core.GeneratorBasedBuilder):
    """No images at all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, {"text": "a", "label": 0}
