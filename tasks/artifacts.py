"""What people see of a stage on the pages of a Prefect server: its progress, and what came of it.

Nothing is sent to the temporary server of a command, which nobody looks at. A server that does not take it costs no stage.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial, singledispatch
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    Artifact,
    ImageArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
    aupdate_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from pipelines.contracts import Embedded, Evaluation, ExportedModel, ImageIndex, PreparedImages, TrainedModel
from pipelines.progress import Progress, Report
from pipelines.store.artifacts import artifact_path, read_json
from pipelines.training.history import read_history
from tasks.server import is_server_lasting

_SECONDS_BETWEEN_UPDATES = 5.0


@contextmanager
def progress_shown(stage: str, report: Report) -> Iterator[Report]:
    """Gives a `Report` that also moves a progress artifact of the stage, which stands at 100% when the block ends well."""
    if not is_server_lasting():
        yield report
        return
    made = send(ProgressArtifact(progress=0.0, key=_key(stage, "progress")).acreate)
    moved = time.monotonic()

    def move(percent: float) -> None:
        nonlocal moved
        if made is not None:
            send(partial(aupdate_progress_artifact, artifact_id=made.id, progress=percent))
        moved = time.monotonic()  # after it: a server that hangs is not asked again at once

    def also(progress: Progress) -> None:
        report(progress)
        if progress.total and time.monotonic() - moved >= _SECONDS_BETWEEN_UPDATES:
            move(100.0 * progress.done / progress.total)

    yield also
    move(100.0)


def show_stage(home: Path, stage: str, made: Any) -> None:
    """Shows what a stage made, inside its task."""
    if is_server_lasting():
        for artifact in describe(made, home):
            artifact.key = _key(stage, artifact.key or "")
            send(artifact.acreate)


@singledispatch
def describe(made: Any, home: Path) -> list[Artifact]:  # noqa: ARG001
    """The artifacts that show a descriptor; their keys are what they show, or empty."""
    return []


@describe.register
def _(made: ImageIndex, home: Path) -> list[Artifact]:  # noqa: ARG001
    splits = "".join(f"| {split} | {count:,} |\n" for split, count in made.examples.items())
    classes = ", ".join(f"`{name}`" for name in made.classes[:50]) + (", ..." if len(made.classes) > 50 else "")
    text = (
        f"| split | images |\n| --- | ---: |\n{splits}\n{len(made.classes)} classes: {classes}\n\nbad files: {made.bad_files:,}"
    )
    return [MarkdownArtifact(markdown=text)]


@describe.register
def _(made: PreparedImages, home: Path) -> list[Artifact]:  # noqa: ARG001
    size = made.image_size
    return [MarkdownArtifact(markdown=f"{size} x {size} px ({made.resize}), {made.layout}, in {len(made.shards)} shards")]


@describe.register
def _(made: Embedded, home: Path) -> list[Artifact]:
    return [MarkdownArtifact(markdown=str(read_json(artifact_path(home, made.artifact) / "activations.json")["stored"]))]


@describe.register
def _(made: TrainedModel, home: Path) -> list[Artifact]:
    kept = f"the weights of {made.phase}, epoch {made.epoch}: accuracy {made.val_accuracy:.4f}, loss {made.val_loss:.4f}"
    rows = [{name: _cell(value) for name, value in row.items()} for row in read_history(home, made)]
    return [TableArtifact(table=rows, description=f"kept: {kept} on validation")]


@describe.register
def _(made: Evaluation, home: Path) -> list[Artifact]:
    folder = artifact_path(home, made.artifact)
    metrics = read_json(folder / "metrics.json")
    rows = [{"class": name} | {key: _cell(value) for key, value in own.items()} for name, own in metrics["per_class"].items()]
    picture = base64.b64encode((folder / "confusion_matrix.png").read_bytes()).decode()
    said = f"{made.split}: accuracy {made.accuracy:.4f} on {made.examples:,} images"
    return [
        TableArtifact(table=rows, description=said),
        ImageArtifact(image_url=f"data:image/png;base64,{picture}", key="confusion", description=said),
    ]


@describe.register
def _(made: ExportedModel, home: Path) -> list[Artifact]:  # noqa: ARG001
    text = f"proved on {made.compared} images: probabilities differ by at most {made.max_difference:.2g}"
    return [MarkdownArtifact(markdown=text)]


def _cell(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _key(stage: str, what: str) -> str:
    """Prefect takes small letters, digits and dashes."""
    return "-".join(filter(None, [stage.replace("_", "-"), what]))


def send(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What the server answers; None where it does not take the artifact."""
    from httpx import HTTPError

    try:
        return asyncio.run(call())
    except (HTTPError, PrefectException, OSError) as error:
        get_run_logger().warning("an artifact could not be shown: %s", error)
        return None
