"""The predict flow: `imagemill predict` for a schedule. Deployable by the entrypoint `flows.predict_flow.predict_flow`.

Apart from `flows.predict`, so that the command does not import Prefect.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import yaml
from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from rich.console import Console

from flows.models import find_model
from flows.predict import predict_images
from flows.request import check_home, default_home, find_registry
from flows.run_names import name_run
from pipelines.recipes import parse_recipe
from pipelines.run_folder import CONFIG, MODEL
from pipelines.store.artifacts import file_digest
from tasks.progress import reporter
from tasks.slots import device_slot


def _run_name() -> str:
    return f"predict {Path(flow_run.parameters['images']).name}"


@flow(name="predict", flow_run_name=_run_name, persist_result=False)
def predict_flow(model: str, images: str, out: str | None = None, home: str | None = None) -> str:
    """Predicts an image, or all images of a folder at any depth, and writes one row per file.

    Args:
        model: a run folder, models:/NAME@ALIAS or models:/NAME/VERSION.
        images: an image, or a folder of images.
        out: the Parquet file to write; default `<home>/predictions/<date>.parquet`, a new one each time.
        home: folder of the artifacts and records; default: `IMAGEMILL_HOME`, or `.imagemill` in the working directory, which
            for a deployment is a temporary one: give it there.

    Returns:
        The path of the file.

    Raises:
        InputError: the model, the images or the place to write are not what they should be.
    """
    folder = Path(home or default_home()).absolute()
    check_home(folder)
    run = find_model(model, find_registry(None, home=folder))
    _name_by_model(run, Path(images))
    now = datetime.now().astimezone()
    target = Path(out).absolute() if out else folder / "predictions" / f"{now:%Y%m%d-%H%M%S-%f}.parquet"
    said = io.StringIO()
    # TensorFlow reads its environment when it is imported, for the first time in this process, by what is called below.
    with device_slot(report=reporter("predict")) as environment, _told(environment):
        target.parent.mkdir(parents=True, exist_ok=True)
        predict_images(run, Path(images), out=target, console=Console(file=said, width=200))
    for line in said.getvalue().splitlines():
        get_run_logger().info(line)
    return str(target)


def _name_by_model(run: Path, images: Path) -> None:
    """Names the run by the model's data set and digest; what is no run folder is an error a little later."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        dataset = parse_recipe(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))).name
        name_run("predict", f"{images.name} by {dataset}", file_digest(run / MODEL))


@contextmanager
def _told(environment: Mapping[str, str]) -> Iterator[None]:
    """These environment variables in the block; afterwards the device may be another's."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
