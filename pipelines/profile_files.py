"""The parts of a profile that read files: the sample, and how fast it is read, checked and decoded."""

from __future__ import annotations

import errno
import hashlib
import random
import stat
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipelines.config import Recipe
from pipelines.contracts import StoreLayout
from pipelines.data.decoder import FileDecoder
from pipelines.data.prepare import source_files
from pipelines.errors import ImageDecodeError, InputError
from pipelines.sources.examine import examine_image
from pipelines.sources.folder import FoundFile
from pipelines.store.index import OK

SAMPLE = 256
SECONDS = 2.0  # of each part at least


def draw_sample(files: Sequence[FoundFile], *, batch_size: int) -> list[FoundFile]:
    """`SAMPLE` files (a batch where that is more, all where there are fewer), the same ones each time."""
    return random.Random(1).sample(files, min(len(files), max(SAMPLE, batch_size)))


def median_side(root: Path, files: Sequence[FoundFile]) -> int | None:
    """The longest side of the median image in px, by the headers alone; None where no file has one."""
    sides = []
    for file in files:
        # A header may promise more pixels than Pillow opens.
        with suppress(OSError, Image.DecompressionBombError), Image.open(_regular(root / file.path)) as image:
            sides.append(max(image.size))
    return statistics.median_low(sides) if sides else None


def _regular(path: Path) -> Path:
    """The path of a file that can be read to its end; OSError where it is of another kind, such as a pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return path


def measure_files(
    root: Path, files: Sequence[FoundFile], recipe: Recipe, rates: dict[str, float | None]
) -> list[dict[str, Any]]:
    """Reads and examines; returns rows of an index, in which files that can't be are left out."""

    def read(file: FoundFile) -> tuple[FoundFile, bytes]:
        return file, _regular(root / file.path).read_bytes()

    def examine(item: tuple[FoundFile, bytes]) -> dict[str, Any]:
        file, contents = item
        facts = examine_image(contents, max_pixels=recipe.max_pixels)
        row = {"path": file.path, "sha256": hashlib.sha256(contents).hexdigest(), "label": file.label, "split": "train"}
        found = {"format": facts.format, "mode": facts.mode, "width": facts.width_px, "height": facts.height_px}
        return {**row, **found, "status": OK, "bytes": len(contents), "orientation": facts.orientation}

    values: Sequence[Any] = files
    parts: list[tuple[str, Callable[[Any], Any]]] = [("read", read), ("examine", examine)]
    for part, work in parts:
        # A second pass over the files would be from memory.
        outcomes, rates[part] = time_passes(partial(_attempt_all, work, values), len(values), once=part == "read")
        values = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        if not values:
            raise InputError(f"`SOURCE` has no readable image; the first of {len(files)} is {outcomes[0]}")
    return list(values)


def measure_decoding(root: Path, rows: Sequence[Mapping[str, Any]], recipe: Recipe, *, layout: StoreLayout) -> float:
    """Images per second of files into rows of the store, as `prepare` makes them; the graphs are traced before."""
    decoder = FileDecoder(root, image_size=recipe.image_size, resize=recipe.resize, layout=layout)
    files = source_files(pa.Table.from_pylist(list(rows)))

    def decode() -> None:
        deque(decoder.decode(files), maxlen=0)  # keeps none

    decode()
    return time_passes(decode, len(files))[1]


def _attempt_all(work: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """The results of `work` in all threads, with the reason in place of one where a file can't be read."""

    def attempt(value: Any) -> Any:
        try:
            return work(value)
        except OSError as error:
            return f"unreadable: {error.strerror}"
        except ImageDecodeError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(attempt, values))


def time_passes(work: Callable[[], Any], images: int, *, once: bool = False) -> tuple[Any, float]:
    """The result of `work`, which handles so many images, and images per second over passes that fill the time of a part."""
    passes, result, started = 0, None, time.monotonic()
    while not passes or (not once and time.monotonic() - started < SECONDS):
        result = work()
        passes += 1
    return result, images * passes / (time.monotonic() - started)
