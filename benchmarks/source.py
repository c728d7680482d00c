"""The images that a benchmark runs on: class folders, or a tar of them."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.config import Recipe
    from pipelines.contracts import ImageIndex, PreparedImages

PER_CLASS = 500  # of a set with a folder `train`, which is large


def unpack_classes(archive: Path, folder: Path) -> Path:
    """Unpacks a tar into `folder` and returns the folder in it that holds the class folders; a folder is taken as it is."""
    if archive.is_dir():
        return archive
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    root = folder
    while len(list(root.iterdir())) == 1:
        root = next(root.iterdir())
    return root


def training_classes(root: Path) -> Path:
    """The folder of the class folders: `train` where there is one."""
    return root / "train" if (root / "train").is_dir() else root


def parse_set(text: str) -> tuple[str, Path, int]:
    """Name, place and image size (px) of NAME=FOLDER_OR_TAR:SIZE."""
    name, _, rest = text.partition("=")
    place, _, size = rest.rpartition(":")
    return name, Path(place), int(size)


def take_some(place: Path, folder: Path, *, per_class: int | None = None) -> Path:
    """Links the first `per_class` images of each class under `folder`; None: all, or 500 of a set with a folder `train`."""
    root = unpack_classes(place, folder / "unpacked")
    classes, out = training_classes(root), folder / "some"
    count = per_class or (PER_CLASS if classes != root else None)
    for kind in sorted(path for path in classes.iterdir() if path.is_dir()):
        (out / kind.name).mkdir(parents=True)
        for image in sorted(kind.iterdir())[:count]:
            (out / kind.name / image.name).symlink_to(image.resolve())
    return out


def ingest_images(home: Path, root: Path, recipe: Recipe) -> ImageIndex:
    """Scans and ingests a folder by a recipe, without Prefect."""
    from pipelines.slices import ingest_slice
    from pipelines.sources.ingest import ingest
    from pipelines.sources.scan import scan_source

    return ingest(home, root, scan_source(home, root), config=ingest_slice(recipe, dataset="benchmark"))


def prepare_images(home: Path, root: Path, recipe: Recipe) -> tuple[ImageIndex, PreparedImages]:
    """The same, and decodes what is new."""
    from pipelines.data.prepare import prepare

    index = ingest_images(home, root, recipe)
    return index, prepare(home, root, index, image_size=recipe.image_size, resize=recipe.resize, store=recipe.store)
