"""The retrain flow: champion + data folder -> challenger -> gate -> promote or keep.

Started by the event `dataset.changed`, by a schedule or by hand. Only new work is done: stages that are known are cache hits,
and a content that was trained on before with this recipe is not trained on again. Deployable by `flows.retrain.retrain`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.champions import ChampionRegistry, open_registry
from flows.request import check_home, check_outside, dataset_name, default_home, find_source
from flows.retrained import (
    Retraining,
    lock_path,
    new_challenger_folder,
    read_retraining,
    retraining_key,
    write_retraining,
)
from flows.train import train_model
from pipelines.config import Recipe
from pipelines.run_folder import GATE, MODEL
from pipelines.sources.content import digest_source
from pipelines.sources.source import Source
from pipelines.store.artifacts import file_digest, read_json
from tasks.gate import gate_task
from tasks.policies import Place
from tasks.progress import reporter
from tasks.worker import working

_QUIET_WAIT_SECONDS = 5.0  # for a lock, before it is said what is waited for


def _run_name() -> str:
    digest = flow_run.parameters["digest"]
    return f"retrain {Path(flow_run.parameters['source']).name}{f' {digest[:12]}' if digest else ''}"


@flow(name="retrain", flow_run_name=_run_name, persist_result=False)
def retrain(
    source: str, recipe: Recipe | None = None, home: str | None = None, digest: str | None = None, again: bool = False
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

    Returns:
        `state`: done, repeated (with the outcome of the earlier time) or moved on (the source is not what the event told of);
        and, but for the last, what `Retraining` says.

    Raises:
        InputError: the request can't be carried out as it stands.
        RunError: it could have been, and something failed; the champion stays.
    """
    recipe, place = recipe or Recipe(), Path(home or default_home()).absolute()
    check_home(place)
    opened = find_source(source, recipe, home=place)
    check_outside(opened, "--home", place)
    dataset = dataset_name(opened, recipe)
    lock = FileLock(lock_path(place, dataset))
    lock_path(place, dataset).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=_QUIET_WAIT_SECONDS)
    except Timeout:
        get_run_logger().info("waits for another retraining of %s", dataset)
        lock.acquire()
    try:
        with working(place):  # one child for the training and the gate
            return _retrain(source, opened, recipe, home=place, digest=digest, again=again, registry=open_registry(place))
    finally:
        lock.release()


def _retrain(
    source: str, opened: Source, recipe: Recipe, *, home: Path, digest: str | None, again: bool, registry: ChampionRegistry
) -> dict[str, Any]:
    """The flow, under the lock of its data set."""
    dataset, log = dataset_name(opened, recipe), get_run_logger()
    content = digest_source(home, opened, report=reporter("scan"))
    if digest is not None and content != digest:
        log.info("%s has changed since the event: nothing is done until it is quiet", source)
        return {"state": "moved on", "content": content}
    key = retraining_key(dataset, content, recipe)
    known = None if again else read_retraining(home, key)
    if known is not None and known.state == "done":
        verdict = "was promoted" if known.promoted else "was not promoted"
        log.info("%s was trained on before with this recipe, and %s: %s", source, verdict, "; ".join(known.reasons))
        return {**known.model_dump(mode="json"), "state": "repeated"}
    if known is None:
        known = _train(source, dataset, content, recipe, home=home, folder=new_challenger_folder(home, key), registry=registry)
        write_retraining(home, key, known)
    challenger = Path(known.challenger)
    version = registry.register(dataset, challenger)
    champion = registry.champion(dataset)  # not that of before training: it may be another by now
    decision = _earlier_decision(challenger, champion)
    if decision is None:
        bits, place = recipe.split.near_equal_bits, Place(home, opened.root)
        decision = gate_task(place, dataset, challenger, champion, recipe.gate, bits).model_dump(mode="json")
    promoted = registry.settle(dataset, version, decision)
    outcome = {"state": "done", "version": version, "promoted": promoted, "reasons": decision["reasons"]}
    known = Retraining.model_validate({**known.model_dump(), **outcome})
    if digest_source(home, opened) == content:
        write_retraining(home, key, known)
    else:
        log.warning("%s changed during the run, which does not count as done for what it was", source)
    log.info("the challenger %s: %s", "is champion" if promoted else "was not promoted", "; ".join(known.reasons))
    return known.model_dump(mode="json")


def _train(
    source: str, dataset: str, content: str, recipe: Recipe, *, home: Path, folder: Path, registry: ChampionRegistry
) -> Retraining:
    """Trains a challenger, from the champion's weights where the recipe says so and there is one."""
    champion = registry.champion(dataset) if recipe.retrain.warm_start else None
    train_model(source, recipe, home=str(home), out=str(folder), start=str(champion) if champion else None)
    return Retraining(dataset=dataset, content=content, challenger=str(folder), state="trained")


def _earlier_decision(challenger: Path, champion: Path | None) -> dict[str, Any] | None:
    """The decision by which the challenger became the champion that it is, where the run was cut off right after that."""
    if champion is None or not (challenger / GATE).exists():
        return None
    if file_digest(champion / MODEL) != file_digest(challenger / MODEL):
        return None
    decision: dict[str, Any] = read_json(challenger / GATE)
    return decision if decision["promote"] else None
