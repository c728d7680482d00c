"""PyTorch's DataLoader over files that Pillow decodes, with or without worker processes. Batches are uint8 [B, S, S, 3]."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.contestants import Measure, Settings, measure_passes
from benchmarks.contestants.photos import change_photo, list_photos, load_photo, to_array


class Photos(Dataset):
    """Images uint8 [S, S, 3] with their labels."""

    def __init__(self, settings: Settings, *, augment: bool) -> None:
        self._photos = list_photos(settings.folder)
        self._size = settings.size
        self._augment = augment

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        path, label = self._photos[number]
        image = load_photo(path, self._size)
        if self._augment:
            image = change_photo(image)
        return torch.from_numpy(to_array(image)), label


def build(settings: Settings, *, workers: int, augment: bool = False) -> Measure:
    """With flip, rotation and zoom where `augment` is set."""
    photos = Photos(settings, augment=augment)
    loader = DataLoader(photos, settings.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda seconds: measure_passes(lambda: loader, seconds=seconds)
