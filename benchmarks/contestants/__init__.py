"""What `benchmarks.input_pipeline` compares: each contestant warms up and measures itself in a process of its own.

Nothing but the standard library is imported here, so that a contestant also runs under an interpreter that has only its own
library (`--peers-python`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

# Seconds in, figures out: what the function that builds a contestant returns.
Measure = Callable[[float], dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """What all contestants are told.

    Attributes:
        folder: of the class folders.
        home: scratch folder that imagemill's contestants share.
        size: side of the images, px.
        batch: images in a batch.
    """

    folder: str
    home: str
    size: int
    batch: int


FLIP_ROTATE_ZOOM = {"horizontal_flip": True, "rotation": 0.1, "zoom": 0.1}
FIVE = {**FLIP_ROTATE_ZOOM, "translation": 0.1, "contrast": 0.2}

# Name -> the module here, the function that builds it, and what that is called with.
CONTESTANTS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "keras": ("with_keras", "build", {}),
    "keras_cache": ("with_keras", "build", {"cache": True}),
    "keras_affine": ("with_keras", "build", {"layers": 3}),
    "keras_five": ("with_keras", "build", {"layers": 5}),
    "grain_workers0": ("with_grain", "build", {"workers": 0}),
    "grain_workers2": ("with_grain", "build", {"workers": 2}),
    "torch_workers0": ("with_torch", "build", {"workers": 0}),
    "torch_workers2": ("with_torch", "build", {"workers": 2}),
    "torch_affine_workers0": ("with_torch", "build", {"workers": 0, "augment": True}),
    "torch_affine_workers2": ("with_torch", "build", {"workers": 2, "augment": True}),
    "imagemill_plain": ("with_imagemill", "build_warm", {"augment": {"where": "none"}}),
    "imagemill_plain_float32": ("with_imagemill", "build_warm", {"augment": {"where": "none"}, "as_float": True}),
    "imagemill_affine": ("with_imagemill", "build_warm", {"augment": FLIP_ROTATE_ZOOM}),
    "imagemill_five": ("with_imagemill", "build_warm", {"augment": FIVE}),
    "imagemill_first_epoch": ("with_imagemill", "build_first_epoch", {}),
    "imagemill_resume": ("with_imagemill", "build_resume", {}),
    "imagemill_draw": ("with_imagemill", "build_draw", {"augment": FLIP_ROTATE_ZOOM}),
}
# Behind the extra `peers`; each may be missing.
OPTIONAL = ("grain", "torch")


def measure_passes(open_pass: Callable[[], Iterable[tuple[Any, Any]]], *, seconds: float) -> dict[str, float]:
    """Whole passes over batches (images, labels), one after the other until `seconds` are over.

    Gives images per second and, since that depends on what else runs, this process's CPU time per image (not of workers that
    it may have).
    """
    images, started, cpu_started = 0, time.monotonic(), time.process_time()
    while not images or time.monotonic() - started < seconds:
        for _, labels in open_pass():
            images += len(labels)
    taken, cpu_taken = time.monotonic() - started, time.process_time() - cpu_started
    return {"images_per_second": images / taken, "cpu_microseconds_per_image": 1e6 * cpu_taken / images}


def measure_endless(batches: Iterator[tuple[Any, Any]], *, steps: int, seconds: float) -> dict[str, float]:
    """As `measure_passes`, for a pipeline without an end.

    It ran on while it waited for its turn; one pass that is not timed takes away the batches that it made ahead.
    """
    for _ in islice(batches, steps):
        pass
    return measure_passes(lambda: islice(batches, steps), seconds=seconds)
