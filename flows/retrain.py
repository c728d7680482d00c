"""The retrain flow: champion + data folder -> challenger -> gate -> promote or keep.

Started by the event `dataset.changed`, by a schedule or by hand. Only new work is done: stages that are known are cache hits,
and a content that was trained on before with this recipe is not trained on again. Deployable by `flows.retrain.retrain`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from pydantic import PositiveFloat

from flows.clean import KEEP_CHAMPIONS, clean_home
from flows.promotion import deliver_what_waits, find_champion
from flows.request import check_home, check_outside, check_request, dataset_name, default_home, find_source
from flows.retrained import (
    Retraining,
    Start,
    challenger_folder,
    lock_path,
    read_retraining,
    read_start,
    retraining_key,
    write_retraining,
    write_start,
)
from flows.run_names import name_run, plan_name
from flows.train import run_stages, take_look
from pipelines.config import Recipe
from pipelines.errors import ImagemillError, InputError, one_line
from pipelines.sources.content import digest_listing
from pipelines.sources.source import Source
from pipelines.store.in_use import home_in_use
from tasks.locks import acquire_telling
from tasks.work_locks import work_lock
from tasks.worker import current_worker, working


@flow(name="retrain", flow_run_name=partial(plan_name, "retrain"), persist_result=False)
def retrain(
    source: str,
    recipe: Recipe | None = None,
    home: str | None = None,
    digest: str | None = None,
    again: bool = False,
    clean_after_days: PositiveFloat | None = None,
) -> dict[str, Any]:
    """Trains a challenger on a source as it is now, and makes it champion if the gate lets it.

    Nothing is changed for those who use the champion before the last step, which is one. A retraining that was cut off goes on
    where it was: in training from its checkpoints, after it with the gate.

    Args:
        source: see `flows.train.train_model`.
        recipe: what to do; the sections `gate` and `retrain` are read here.
        home: folder of the artifacts and records, see `flows.train.train_model`.
        digest: the content that an event told of. Where the source holds another one by now, nothing is done: that content has
            its own event, when it is quiet.
        again: also where this content was trained on before with this recipe.
        clean_after_days: afterwards, failed or not, what nobody has used for so long is removed from the home, as
            `imagemill clean` does; nothing where another run is using the home. None: nothing is removed.

    Returns:
        `state`: done, repeated (with the outcome of the earlier time), waits (for the registry) or moved on (the source is not
        what the event told of); and, but for the last, what `Retraining` says.

    Raises:
        InputError: the request can't be carried out as it stands.
        RunError: it could have been, and something failed; the champion stays.
    """
    recipe, place = recipe or Recipe(), Path(home or default_home()).absolute()
    if not recipe.registry.enabled:
        raise InputError("`registry.enabled` must be true to retrain: the champion is kept there")
    check_home(place)
    opened = find_source(source, recipe, home=place)
    check_outside(opened, "--home", place)
    dataset = dataset_name(opened, recipe)
    lock = work_lock(lock_path(place, dataset))
    lock_path(place, dataset).parent.mkdir(parents=True, exist_ok=True)
    acquire_telling(lock, lambda: get_run_logger().info("waits for another retraining of %s", dataset))
    try:
        with home_in_use(place), working(place, devices=recipe.resources.devices):  # one child for the training and the gate
            return _retrain(opened, recipe, home=place, digest=digest, again=again)
    finally:
        lock.release()
        if clean_after_days is not None:
            _clean(place, clean_after_days)


def _clean(home: Path, days: float) -> None:
    """Cleans the home; that it could not be done is no failure of the retraining."""
    try:
        removed = clean_home(home, older_than_days=days, keep_champions=KEEP_CHAMPIONS)
    except (ImagemillError, OSError) as error:
        get_run_logger().warning("not cleaned: %s", one_line(error))
    else:
        freed_mb = sum(leftover.size_bytes for leftover in removed) / 1e6
        get_run_logger().info("cleaned: %d things that nobody used for %g days, %.1f MB", len(removed), days, freed_mb)


def _retrain(source: Source, recipe: Recipe, *, home: Path, digest: str | None, again: bool) -> dict[str, Any]:
    """The flow, under the lock of its data set.

    The source is looked at once: what is judged by its content is what is trained on, file by file, whatever changes meanwhile.
    """
    dataset, log = dataset_name(source, recipe), get_run_logger()
    look = take_look(source, recipe, home=home)
    content = digest_listing(home, look.listing)
    name_run("retrain", dataset, content)
    if digest is not None and content != digest:
        log.info("%s has changed since the event: nothing is done until it is quiet", dataset)
        return {"state": "moved on", "content": content}
    key = retraining_key(dataset, content, recipe)
    known = None if again else read_retraining(home, key)
    if known is not None:
        verdict = {True: "was promoted", False: "was not promoted", None: "was judged"}[known.promoted]
        log.info("%s was trained on before with this recipe, and %s: %s", dataset, verdict, "; ".join(known.reasons))
        deliver_what_waits(recipe, home=home)  # else nobody does, as long as the source does not change
        return {"state": "repeated", **known.model_dump(mode="json")}
    folder = challenger_folder(home, dataset)
    check_request(source, recipe, home=home, out=folder)
    current_worker().expect()  # new images, or a new recipe: there will be something to do
    start = _choose_start(recipe, home=home, dataset=dataset, key=key) if recipe.retrain.warm_start else None
    run = run_stages(look, recipe, out=folder, start=start)
    promotion = run.promotion
    assert promotion is not None
    made = Retraining(
        dataset=dataset,
        content=content,
        challenger=str(run.folder),
        version=promotion.version,
        promoted=promotion.promoted,
        reasons=promotion.reasons,
    )
    if not promotion.settled:
        log.warning("the registry does not answer, or has another champion by now: the next retraining goes on with it")
        return {"state": "waits", **made.model_dump(mode="json")}
    write_retraining(home, key, made)
    if made.promoted is not None:
        log.info("the challenger %s: %s", "is champion" if made.promoted else "was not promoted", "; ".join(made.reasons))
    return {"state": "done", **made.model_dump(mode="json")}


def _choose_start(recipe: Recipe, *, home: Path, dataset: str, key: str) -> Path | None:
    """The run folder to take the weights of; the same again where this retraining was cut off or waits.

    The champion may be another by now, this retraining's own model even: from that the same content would be trained again.
    """
    start = read_start(home, key)
    if start is None or not start.is_there:
        champion = find_champion(recipe, home=home, dataset=dataset)
        start = Start(folder=None if champion is None else str(champion))
        write_start(home, key, start)
    return start.path
