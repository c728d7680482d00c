"""Prepare: images decoded and resized into the image store."""

from __future__ import annotations

from typing import Literal

from pipelines.config import StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages
from tasks.policies import Place, stage_task
from tasks.worker import run_stage


@stage_task("prepare")
def prepare_task(
    place: Place, index: ImageIndex, image_size: int, resize: Literal["stretch", "crop"], store: StoreConfig
) -> PreparedImages:
    """Makes sure that the image store holds every usable image."""
    prepared: PreparedImages = run_stage(
        "prepare", home=place.home, root=place.source, index=index, image_size=image_size, resize=resize, store=store
    )
    return prepared
