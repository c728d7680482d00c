"""The train flow: a source and a recipe in, a run folder out.

Every stage is a Prefect task whose result is kept under a key made of what it read, so that a repeated run does nothing
twice. Works with the configured Prefect server, or with Prefect's own temporary one. Deployable by the entrypoint
`flows.train.train_model`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger

from flows.promotion import Promotion, register_and_judge
from flows.request import (
    check_request,
    complete_recipe,
    dataset_name,
    default_home,
    find_source,
    make_default_run_folder,
)
from flows.run_names import name_run, plan_name
from pipelines.config import Recipe
from pipelines.contracts import ImageIndex, Listing, PreparedImages, TrainedModel
from pipelines.recipes import suit_recipe
from pipelines.registry.connection import import_ahead
from pipelines.run_folder import INDEX, RunResults, write_run_folder
from pipelines.slices import embed_slice, ingest_slice, training_slice
from pipelines.sources.content import digest_listing
from pipelines.sources.source import Source
from pipelines.store.artifacts import artifact_path
from pipelines.store.index import read_usable
from pipelines.store.shards import forget_intact
from tasks.embed import embed_task
from tasks.evaluate import evaluate_task
from tasks.export import export_task
from tasks.fine_tune import fine_tune_task
from tasks.head import head_task
from tasks.ingest import ingest_task
from tasks.policies import Place, check_recorded, discard_checkpoints, discard_stale_checkpoints, in_home, use_home
from tasks.prepare import prepare_task
from tasks.progress import current_listener
from tasks.scan import scan
from tasks.warm_start import warm_start_task
from tasks.worker import working


@dataclass(frozen=True)
class TrainedRun:
    """What a run left.

    Attributes:
        folder: the run folder.
        promotion: what became of its model; None where the recipe says not to register it.
    """

    folder: Path
    promotion: Promotion | None


@flow(name="train", flow_run_name=partial(plan_name, "train"), persist_result=False)
def train_model(
    source: str,
    recipe: Recipe | None = None,
    home: str | None = None,
    out: str | None = None,
    verify: bool = False,
    start: str | None = None,
) -> str:
    """Trains, evaluates and exports a model, registers it, and promotes it if the gate lets it.

    Args:
        source: a folder with one sub-folder per class, with or without train/validation/test folders above them; a .csv or
            .parquet table with the columns path and label; or tfds:NAME.
        recipe: what to do; the defaults where None.
        home: folder of the artifacts and records, made where it is missing; default: `IMAGEMILL_HOME`, or `.imagemill` in
            the working directory, which for a deployment is a temporary one: give it there.
        out: the run folder to write; default `runs/<date>-<name>`.
        verify: read every file of the source and every shard of the image store again, also those whose size and
            modification time are as they were.
        start: a run folder to begin with the weights of, see `RetrainConfig`; where they do not fit, training starts afresh.

    Returns:
        The path of the run folder.

    Raises:
        InputError: the request can't be carried out as it stands.
        RunError: it could have been, and something failed.
    """
    recipe, place, folder = recipe or Recipe(), Path(home or default_home()).absolute(), Path(out) if out else None
    opened = find_source(source, recipe, home=place)
    check_request(opened, recipe, home=place, out=folder)
    with use_home(place):
        if verify:
            forget_intact(place)
        look = take_look(opened, recipe, home=place, verify=verify)
        name_run("train", dataset_name(opened, recipe), digest_listing(place, look.listing))
        return str(run_stages(look, recipe, out=folder, start=Path(start) if start else None).folder)


@dataclass(frozen=True)
class Look:
    """A source as it was found, once: all that a run knows of it.

    Attributes:
        source: that was looked at.
        listing: what was found.
        stages: of the run, of which this was the first.
        started: when it began, on the clock that `time.monotonic` reads.
    """

    source: Source
    listing: Listing
    stages: Stages
    started: float


def take_look(source: Source, recipe: Recipe, *, home: Path, verify: bool = False) -> Look:
    """Scans a source for a run.

    Args:
        source: to look at.
        recipe: of the run.
        home: absolute path.
        verify: as in `train_model`.

    Raises: as `train_model`.
    """
    started = time.monotonic()
    stages = Stages(Place(home, source.root, recipe.checkpoint_every_steps))
    return Look(source, stages.scan(source, verify=verify), stages, started)


def run_stages(look: Look, recipe: Recipe, *, out: Path | None, start: Path | None = None) -> TrainedRun:
    """What `train_model` does after its look, for every flow that trains; the request must have been checked.

    Args:
        look: at the source. Files that changed since are an error where they are read.
        recipe: as there.
        out: as there.
        start: as there.

    Raises: as there.
    """
    stages, place = look.stages, look.stages.place
    dataset = dataset_name(look.source, recipe)
    with use_home(place.home), working(place.home, devices=recipe.resources.devices):
        index = stages.run(ingest_task, listing=look.listing, config=ingest_slice(recipe, dataset=dataset))
        recipe = complete_recipe(_suit_to_images(recipe, index, home=place.home), dataset=dataset)
        prepared = stages.run(prepare_task, index=index, image_size=recipe.image_size, resize=recipe.resize, store=recipe.store)
        trained, started_from = _train(stages, place, prepared, recipe, start=start)
        judged = {"prepared": prepared, "trained": trained, "model": recipe.model, "split": index.evaluation_split}
        evaluation = stages.run(evaluate_task, **judged)
        exported = stages.run(export_task, **judged)
        timings = stages.timings(look.started, index)
        # A default name is chosen at the end, so that two runs that started in one second do not share it.
        folder = Path(out or make_default_run_folder(dataset)).absolute()
        results = RunResults(recipe, index, trained, evaluation, exported, timings, started_from)
        write_run_folder(place.home, folder, results)
        promotion = register_and_judge(place, results, folder, dataset=dataset) if recipe.registry.enabled else None
    discard_stale_checkpoints(place.home)
    return TrainedRun(folder, promotion)


def _train(
    stages: Stages, place: Place, prepared: PreparedImages, recipe: Recipe, *, start: Path | None
) -> tuple[TrainedModel, Path | None]:
    """Embeds the images and runs both phases.

    Returns:
        The model, and the run folder that it began with the weights of: `start`, or None where these do not fit.
    """
    training, settings = training_slice(recipe), recipe.fine_tune
    embedded = stages.run(embed_task, prepared=prepared, config=embed_slice(recipe))
    if recipe.registry.enabled and stages.made_anything:
        import_ahead()
    head = None
    if start is not None and settings.epochs:
        champion = {"champion": start, "activations": embedded.activations, "replay": recipe.retrain.replay}
        head = warm_start_task(place, prepared=prepared, config=training, settings=settings, **champion)
    started_from = start if head is not None else None
    if started_from is not None:
        settings = settings.model_copy(update={"epochs": recipe.retrain.epochs})
    elif recipe.head.epochs:
        head = stages.run(head_task, prepared=prepared, features=embedded.features, config=training, head=recipe.head)
    inputs = {"head_model": head, "activations": embedded.activations, "config": training, "settings": settings}
    return stages.run(fine_tune_task, prepared=prepared, **inputs), started_from


def _suit_to_images(recipe: Recipe, index: ImageIndex, *, home: Path) -> Recipe:
    """The recipe with what it leaves open chosen by the images, which is said in one line."""
    images = read_usable(artifact_path(home, index.artifact) / INDEX, ["width", "height"])
    side_px = statistics.median_low(map(max, images["width"].to_pylist(), images["height"].to_pylist()))
    recipe, choice = suit_recipe(recipe, side_px=side_px, train_images=index.examples["train"])
    if choice is not None:
        current_listener().noted(choice)
        get_run_logger().info(choice)
    return recipe


class Stages:
    """Runs the stages of one flow run, each as its task, and keeps the time.

    Attributes:
        place: of the run.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._timings: dict[str, dict[str, Any]] = {}

    @property
    def made_anything(self) -> bool:
        """Whether any stage so far was no cache hit, but for the scan, which never is."""
        return any(timing["cache"] == "miss" for stage, timing in self._timings.items() if stage != "scan")

    def scan(self, source: Source, *, verify: bool) -> Listing:
        """Lists the source; never a cache hit."""
        listing: Listing = self._timed("scan", lambda: (scan(self.place, source, verify=verify), False))
        return listing

    def run(self, stage_task: Task[Any, Any], **inputs: Any) -> Any:
        """Runs one stage, or takes its result from the record of an earlier run.

        Raises: what the stage raises.
        """
        stage = stage_task.name

        def call() -> tuple[Any, bool]:
            state = in_home(stage_task, self.place.home)(self.place, **inputs, return_state=True)
            result = state.result()
            check_recorded(self.place.home, stage, inputs)
            discard_checkpoints(self.place.home, stage, inputs)
            return result, state.name == "Cached"

        return self._timed(stage, call)

    def timings(self, started: float, index: ImageIndex) -> dict[str, Any]:
        """The content of `timings.json`."""
        total_seconds = time.monotonic() - started
        return {"total_seconds": total_seconds, "images": sum(index.examples.values()), "stages": self._timings}

    def _timed(self, stage: str, call: Callable[[], tuple[Any, bool]]) -> Any:
        listener, started = current_listener(), time.monotonic()
        listener.started(stage)
        result, hit = call()
        seconds = time.monotonic() - started
        listener.finished(stage, seconds=seconds, hit=hit)
        self._timings[stage] = {"seconds": seconds, "cache": "hit" if hit else "miss"}
        return result
