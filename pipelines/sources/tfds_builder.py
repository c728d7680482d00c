"""What is asked of TensorFlow Datasets itself: which data set, which of its features, and its images as they were stored."""

from __future__ import annotations

import difflib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

from pipelines.errors import ImagemillError, InputError, one_line
from pipelines.progress import Progress, Report
from pipelines.signals import put_off_signals
from pipelines.sources.pillow import identify_format
from pipelines.store.artifacts import disk_errors

if TYPE_CHECKING:
    from pipelines.sources.tfds import DataSetName

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10
_EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", None: ".bin"}
_REPORT_EVERY = 500


@dataclass(frozen=True)
class DataSet:
    """A data set of images with one class label each.

    Attributes:
        builder: TFDS's `DatasetBuilder`.
        title: as the user knows it, for messages.
        image: name of the feature that holds the image.
        label: name of the feature that holds the class.
    """

    builder: Any
    title: str
    image: str
    label: str

    @property
    def full_name(self) -> str:
        """NAME[/CONFIG]/VERSION."""
        return str(self.builder.info.full_name)

    @property
    def folder(self) -> Path:
        """Where it is, or will be, prepared."""
        return Path(self.builder.data_dir)

    @property
    def split_names(self) -> list[str]:
        """The splits of a prepared data set."""
        return list(self.builder.info.splits)

    def check_reachable(self) -> None:
        """Asks the first server that it is fetched from for a sign of life: TFDS would try ten times, for minutes.

        Raises:
            InputError: there is none.
        """
        urls = [url for url in self.builder.url_infos or () if url.startswith("http")]
        try:
            if urls:
                urllib.request.urlopen(urllib.request.Request(urls[0], method="HEAD"), timeout=_PATIENCE_SECONDS).close()
        except (urllib.error.HTTPError, http.client.HTTPException):
            return  # it answers; some refuse HEAD
        except OSError as error:
            raise InputError(
                f"`SOURCE` {self.title} is not prepared in {str(self.folder.parent)!r}, and can't be downloaded: {urls[0]} does"
                f" not answer ({one_line(getattr(error, 'reason', error))})"
            ) from error

    def prepare(self) -> None:
        """Fetches and prepares the data set, where that was not done yet.

        Raises:
            InputError: TFDS can't.
            RunError: no space left on the device.
        """
        with disk_errors(self.folder), in_one_line(self.title, "can't be prepared"):
            self.builder.download_and_prepare()

    def check_splits(self, splits: Mapping[str | None, str]) -> None:
        """Checks that the splits are there, hold something, and share nothing.

        Raises:
            InputError: one of these.
        """
        taken: dict[str, list[tuple[int, int, str]]] = {}
        for text in splits.values():
            with in_one_line(self.title, f"has no split {text!r}"):
                parts = [part for part in self.builder.info.splits[text].file_instructions if part.take]
            if not parts:
                raise InputError(f"`tfds.splits`: {text!r} of {self.title} is empty")
            for part in parts:
                start, end = part.skip, part.skip + part.take
                for other_start, other_end, other in taken.setdefault(part.filename, []):
                    if start < other_end and other_start < end:
                        raise InputError(f"`tfds.splits` must not overlap; {other!r} and {text!r} of {self.title} share images")
                taken[part.filename].append((start, end, text))

    def write(self, folder: Path, splits: Mapping[str | None, str], *, files: str, report: Report) -> list[str]:
        """Writes the images as SPLIT/NUMBER.ENDING, byte for byte as TFDS stores them, and a table of them.

        Args:
            folder: to write to.
            splits: which of its splits each of ours is; None for one that is to be drawn.
            files: name of the table, with the columns path, label and split.
            report: told how many images are written.

        Returns:
            The classes that occur, in the order of the data set's own numbers.

        Raises:
            InputError: an image has no label, or the records can't be read.
        """
        total = sum(self.builder.info.splits[text].num_examples for text in splits.values())
        rows: list[tuple[str, int, str | None]] = []
        with put_off_signals() as let_signals_through:
            for split, text in splits.items():
                part = folder / (split or "all")
                part.mkdir()
                for number, (contents, label) in enumerate(self._read(text)):
                    path = part / f"{number:06d}{_EXTENSIONS[identify_format(contents)]}"
                    path.write_bytes(contents)
                    rows.append((path.relative_to(folder).as_posix(), label, split))
                    if len(rows) % _REPORT_EVERY == 0 or len(rows) == total:
                        report(Progress(len(rows), total, "images"))
                        let_signals_through()
        name_of = self.builder.info.features[self.label].int2str
        numbers = sorted({label for _, label, _ in rows})
        self._say_unused(numbers)
        columns = {
            "path": [path for path, _, _ in rows],
            "label": [name_of(label) for _, label, _ in rows],
            "split": pa.array([split for _, _, split in rows], pa.string()),
        }
        pq.write_table(pa.table(columns), folder / files)
        return [name_of(number) for number in numbers]

    def _read(self, split: str) -> Iterator[tuple[bytes, int]]:
        """The encoded image and the number of the class of each example, in the order of the records."""
        with in_one_line(self.title, f"can't be read ({split!r})"):
            examples = self.builder.as_dataset(
                split=split,
                decoders=tfds.decode.PartialDecoding(
                    {self.image: True, self.label: True}, decoders={self.image: tfds.decode.SkipDecoding()}
                ),
                read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
            )
            for example in examples.as_numpy_iterator():
                label = int(example[self.label])
                if label < 0:
                    raise InputError(
                        f"`SOURCE` {self.title}: split {split!r} has images without a class (label {label}); name the others,"
                        " such as by --set tfds.splits.train=train"
                    )
                yield example[self.image], label

    def _say_unused(self, numbers: Sequence[int]) -> None:
        feature = self.builder.info.features[self.label]
        if unused := [feature.int2str(number) for number in sorted(set(range(feature.num_classes or 0)) - set(numbers))]:
            logger.warning("%s: no image is of class %s; left out", self.title, ", ".join(map(repr, unused)))


def open_data_set(asked: DataSetName, *, data_dir: Path, prepared: Path | None) -> DataSet:
    """A data set with its features, prepared or not.

    Args:
        asked: what the user wants.
        data_dir: where TFDS keeps data sets.
        prepared: its folder, where it is prepared; then the code that made it is not needed.

    Raises:
        InputError: TFDS does not know it, or it is no data set of images with one class label each.
    """
    title = f"tfds:{asked}"
    if prepared:
        with in_one_line(title, f"can't be read from {str(prepared)!r}"):
            builder = tfds.builder_from_directory(prepared)
    else:
        # Community data sets would be looked up in the network.
        known = tfds.list_builders(with_community_datasets=False)
        if asked.name not in known:
            near = difflib.get_close_matches(asked.name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise InputError(f"`SOURCE` {title}: no such data set is known to TFDS or prepared in {str(data_dir)!r}{hint}")
        with in_one_line(title, "can't be had"):
            builder = tfds.builder(str(asked), data_dir=str(data_dir))
    image, label = _find_features(builder.info, title)
    return DataSet(builder, title, image, label)


@contextmanager
def in_one_line(title: str, what: str) -> Iterator[None]:
    """Turns whatever TFDS raises into one line.

    Raises:
        InputError: in its place.
    """
    try:
        yield
    except ImagemillError:
        raise
    except Exception as error:  # TFDS raises errors of many kinds, assertions among them
        raise InputError(f"`SOURCE` {title} {what}: {type(error).__name__}: {one_line(error)}") from error


def _find_features(info: Any, title: str) -> tuple[str, str]:
    """Names of the image and of the class label: those of `supervised_keys`, else the only ones of their kind."""
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [name for name, feature in features.items() if _is_image(feature)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    keys = info.supervised_keys
    if keys and len(keys) == 2 and keys[0] in images and keys[1] in labels:
        return keys[0], keys[1]
    if len(images) == len(labels) == 1:
        return images[0], labels[0]
    found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in sorted(features.items()))
    raise InputError(
        f"`SOURCE` must be a data set with one image and one class label per example; {title} has"
        f" {one_line(found or type(info.features).__name__)}"
    )


def _is_image(feature: Any) -> bool:
    """Pictures: no masks, and no numbers of 32 bits that TFDS stores as four channels of a PNG."""
    is_picture = isinstance(feature, tfds.features.Image) and not isinstance(feature, tfds.features.LabeledImage)
    return is_picture and feature.np_dtype in (np.uint8, np.uint16)
