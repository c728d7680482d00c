"""Prepare: images decoded and resized into the image store."""

from __future__ import annotations

from typing import Literal

from prefect import task

from pipelines.config import StoreConfig
from pipelines.contracts import ImageIndex, PreparedImages
from tasks.policies import DescriptorSerializer, Place, StagePolicy
from tasks.progress import reporter


@task(
    name="prepare",
    task_run_name="prepare",
    cache_policy=StagePolicy(stage="prepare"),
    result_serializer=DescriptorSerializer(),
)
def prepare_task(
    place: Place, index: ImageIndex, image_size: int, resize: Literal["stretch", "crop"], store: StoreConfig
) -> PreparedImages:
    """Makes sure that the image store holds every usable image."""
    from pipelines.data.prepare import prepare

    report = reporter("prepare")
    return prepare(place.home, place.source, index, image_size=image_size, resize=resize, store=store, report=report)
