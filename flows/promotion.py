"""What follows a finished run: it is registered, judged against the champion, and promoted or kept as challenger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.request import find_registry
from pipelines.config import Recipe
from pipelines.errors import InputError, RegistryError
from pipelines.gate.decide import Decision
from pipelines.registry.candidate import registered_name
from pipelines.registry.connection import Registry
from pipelines.registry.fetch import Reference, fetch
from pipelines.registry.outbox import waiting_entries
from pipelines.registry.register import CHAMPION
from pipelines.registry.service import deliver_waiting
from pipelines.run_folder import RunResults
from tasks.gate import gate_task
from tasks.policies import Place
from tasks.progress import current_listener
from tasks.promote import promote_task
from tasks.register import register_task


@dataclass(frozen=True)
class Promotion:
    """What became of a run's model.

    Attributes:
        version: of the registered model; None where the registry could not be used, and the run waits for it.
        promoted: whether it is champion; None where that was not decided now: it waits, or was judged before.
        reasons: of the gate.
        settled: whether nothing is left to do: not where the registry could not be used, or has another champion by now.
    """

    version: int | None
    promoted: bool | None
    reasons: tuple[str, ...] = ()
    settled: bool = True


def register_and_judge(place: Place, results: RunResults, folder: Path, *, dataset: str) -> Promotion:
    """Registers a run, judges its model if it was not judged before, and promotes it if the gate lets it, in this order.

    Cut off anywhere, the same call goes on where it was.

    Args:
        place: of the run.
        results: of the run.
        folder: its run folder, which gets the gate's decision (`gate.json`).
        dataset: the data set's name.

    Raises:
        RunError: the champion's files are gone, or no space is left on the device.
    """
    recipe, listener = results.recipe, current_listener()
    registry = find_registry(recipe.registry.uri, home=place.home)
    registration = register_task(registry, results, dataset)
    name, version = registration.candidate.name, registration.version
    if version is None:
        return Promotion(None, None, settled=False)
    if registration.settled:
        listener.noted(f"registered as version {version} of {name!r}, and judged, before")
        return Promotion(version, None)
    champion = None
    if registration.champion is not None:
        try:
            champion = fetch(registry, Reference(name, None, registration.champion))
        except RegistryError as error:
            listener.noted(f"{error}; version {version} of {name!r} is registered, and judged by the next run like this one")
            return Promotion(version, None, settled=False)
    decision: Decision = gate_task(place, dataset, folder, champion, recipe.gate, recipe.split.near_equal_bits)
    promoted = promote_task(registry, registration, decision.model_dump(mode="json"))
    verdict = "is champion" if promoted else "is not promoted"
    listener.noted(f"version {version} of {name!r} {verdict}: {'; '.join(decision.reasons)}")
    return Promotion(version, promoted, tuple(decision.reasons), settled=promoted == decision.promote)


def find_champion(recipe: Recipe, *, home: Path, dataset: str) -> Path | None:
    """The run folder of the champion of a data set, on this machine; None where there is none, or the registry can't be used.

    Raises:
        RunError: its files are gone.
    """
    registry: Registry = find_registry(recipe.registry.uri, home=home)
    try:
        return fetch(registry, Reference(registered_name(recipe, dataset), CHAMPION, None))
    except (InputError, RegistryError) as error:
        current_listener().noted(f"no champion to begin with: {error}")
        return None


def deliver_what_waits(recipe: Recipe, *, home: Path) -> None:
    """Tells the registry what waits for it, for a run that has nothing to register itself; that it can't be told is no failure.

    Raises:
        RunError: no space left on the device.
    """
    registry, listener = find_registry(recipe.registry.uri, home=home), current_listener()
    if not waiting_entries(registry):
        return
    try:
        delivered = deliver_waiting(registry, note=listener.noted)
    except RegistryError as error:
        listener.noted(f"{error}; what waits in {registry.folder / 'outbox'} still does")
    else:
        listener.noted(f"{delivered} runs and decisions that waited for the registry are delivered")
