"""Where the time of a run goes: each part measured by itself on a sample of a source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import profile_files
from pipelines.augment.philox import DrawKey, image_ids
from pipelines.augment.policy import Policy, build_policy
from pipelines.bottleneck import Layout, Phase, Rates
from pipelines.config import PhaseConfig, Recipe, StoreConfig
from pipelines.contracts import Embedded, PreparedImages, StoredActivations
from pipelines.data.batches import build_train_dataset, build_view_dataset
from pipelines.data.prepare import prepare, read_examples, read_split
from pipelines.models.assemble import build_classifier, set_trainable_head, set_trainable_top
from pipelines.profile_files import measure_decoding, measure_files, time_passes
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.signals import put_off_signals
from pipelines.slices import embed_slice, training_slice
from pipelines.sources.folder import FoundFile
from pipelines.sources.ingest import publish_index
from pipelines.store.activations import ViewReader
from pipelines.store.layouts import choose_layout
from pipelines.store.rows import RowReader
from pipelines.training.cache_choice import count_views
from pipelines.training.embed import embed
from pipelines.training.phases import build_learner, make_deterministic
from pipelines.training.precision import layers_in
from pipelines.training.trainer import Trainer

_FEWEST_STEPS = 3
_STEPS_AHEAD = 8  # more than the data set makes before anyone asks


@dataclass(frozen=True)
class Profile:
    """What was measured, and on what.

    Attributes:
        images: how many it was measured on.
        bad_files: how many more of the sample could not be read.
        rates: of the parts.
        stored: the phases that learn from stored activations.
        layout: of the image store.
    """

    images: int
    bad_files: int
    rates: Rates
    stored: tuple[Phase, ...]
    layout: Layout


def measure_source(
    root: Path,
    files: Sequence[FoundFile],
    classes: Sequence[str],
    recipe: Recipe,
    *,
    images: int,
    report: Report = ignore_progress,
) -> Profile:
    """Measures every part on some files of a folder, each for a few seconds; what it writes is temporary.

    The network gets random weights: they are as fast as others and need no download. The store gets the layout that it would
    have for all `images` of the source.

    Raises:
        InputError: none of the files can be read.
        RunError: a file changed meanwhile or can't be decoded after all, or no space is left for the decoded images.
    """
    make_deterministic(recipe.seed)
    rates: dict[str, float | None] = {}
    report(Progress(0, 3, "parts", "read, examine, decode"))
    rows = measure_files(root, files, recipe, rates)
    layout, _ = choose_layout(recipe.store, images=images, image_size=recipe.image_size)
    rates["decode"] = measure_decoding(root, rows, recipe, layout=layout)
    batch_size = min(recipe.batch_size, len(rows))
    whole = len(rows) // batch_size * batch_size  # a smaller last batch would be a step of another kind
    report(Progress(1, 3, "parts", "gather, warp, colour"))
    with TemporaryDirectory(prefix="imagemill-profile-") as folder:
        prepared = _prepare(Path(folder), root, rows[:whole], classes, recipe, layout=layout)
        examples, reader = read_examples(Path(folder), prepared, "train")
        ids = image_ids(examples.digests)
        _measure_batches(reader, ids, batch_size, recipe, rates)
        batches = build_train_dataset(
            reader,
            examples.labels,
            image_ids=ids,
            num_classes=len(classes),
            batch_size=batch_size,
            augment=recipe.augment,
            seed=recipe.seed,
            sampling=recipe.sampling,
        )
        rates["input"] = _measure_input(iter(batches), batch_size)
        report(Progress(2, 3, "parts", "wait, step"))
        stored = _measure_phases(Path(folder), prepared, batches, recipe, rates)
    report(Progress(3, 3, "parts"))
    views = count_views(recipe.augment, recipe.cache.views)
    return Profile(
        images=len(rows),
        bad_files=len(files) - len(rows),
        rates=Rates(**rates, views=views),  # type: ignore[arg-type]
        stored=stored,
        layout=prepared.layout,
    )


def _prepare(
    home: Path, root: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[str], recipe: Recipe, *, layout: Layout
) -> PreparedImages:
    """The sample in an image store as a run would make it, all of it for training."""
    index, store = publish_index(home, classes, rows), StoreConfig(layout=layout)
    return prepare(home, root, index, image_size=recipe.image_size, resize=recipe.resize, store=store)


def _measure_batches(
    reader: RowReader, ids: NDArray[np.uint64], batch_size: int, recipe: Recipe, rates: dict[str, float | None]
) -> None:
    """Gathers shuffled batches, and augments one of them by each half of the augmentation."""
    order = np.random.default_rng(recipe.seed).permutation(len(reader)).reshape(-1, batch_size)
    _, rates["gather"] = time_passes(lambda: [reader.gather(batch) for batch in order], len(reader))
    images, key = reader.gather(order[0]), DrawKey(recipe.seed, 0, ids[order[0]])
    policy = build_policy(recipe.augment) if recipe.augment.where == "dataset" else Policy()
    halves = {
        "warp": replace(policy, coloring=(), erasing=None),
        "colour": replace(policy, geometry=(), rand_augment=None),
    }
    for part, half in halves.items():
        does_something = half != Policy(engine=half.engine)
        rates[part] = time_passes(partial(half.augment, images, key), batch_size)[1] if does_something else None


def _measure_input(batches: Iterator[Any], batch_size: int) -> float:
    """Images per second of an endless data set, those that it made ahead not counted."""
    for _ in range(_STEPS_AHEAD):
        next(batches)
    return time_passes(lambda: next(batches), batch_size)[1]


def _measure_phases(
    home: Path, prepared: PreparedImages, dataset: Any, recipe: Recipe, rates: dict[str, float | None]
) -> tuple[Phase, ...]:
    """Embeds the sample, where the recipe stores that, and trains both phases for a few seconds, if they have epochs.

    Returns those that learn from what was stored, not from `dataset`.
    """
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": "none"})})
    embedded, rates["embed"] = _measure_embed(home, prepared, recipe)
    config = training_slice(recipe)
    classes = len(prepared.classes)
    with layers_in(recipe.resources.precision):
        classifier = build_classifier(recipe.model, image_size=recipe.image_size, num_classes=classes, seed=recipe.seed)

    learned_from: dict[Phase, StoredActivations | None] = {}

    def measure(name: Phase, phase: PhaseConfig, stored: StoredActivations | None) -> None:
        learner, batches, given = build_learner(classifier, config, stored, 0), dataset, rates["input"]
        if stored is not None:
            examples = read_split(home, prepared, "train")
            reader = ViewReader(home, stored, examples.table["sha256"], views=len(stored.views))
            ids, size = image_ids(examples.table["sha256"]), min(recipe.batch_size, len(examples))
            batches = build_view_dataset(
                reader, examples.labels, image_ids=ids, batch_size=size, seed=recipe.seed, sampling=recipe.sampling
            )
            given = _measure_input(iter(batches), size)
        trainer = Trainer(learner, phase, element_spec=batches.element_spec)
        rates[f"{name}_input"], learned_from[name] = given, stored
        rates[f"{name}_step"], rates[f"{name}_wait"] = _measure_steps(trainer.step, iter(batches))

    rates |= dict.fromkeys(f"{name}_{part}" for name in ("head", "fine_tune") for part in ("input", "step", "wait"))
    if recipe.head.epochs:
        set_trainable_head(classifier)
        measure("head", recipe.head, embedded.features)
    if recipe.fine_tune.epochs:
        set_trainable_top(classifier, layers=recipe.fine_tune.layers)
        measure("fine_tune", recipe.fine_tune, embedded.activations)
    return tuple(name for name, stored in learned_from.items() if stored is not None)


def _measure_embed(home: Path, prepared: PreparedImages, recipe: Recipe) -> tuple[Embedded, float | None]:
    """What is stored of the sample, and images per second of making it, the first batch with its graph left out."""
    seen: list[tuple[float, Progress]] = []

    def note(progress: Progress) -> None:
        if not progress.milestone:
            seen.append((time.monotonic(), progress))

    embedded = embed(home, prepared, config=embed_slice(recipe), report=note)
    if embedded.features is None:
        return embedded, None
    (started, first), (ended, last) = seen[0], seen[-1]
    if len(seen) == 1:
        return embedded, first.images_per_second
    return embedded, (last.done - first.done) / (ended - started)


def _measure_steps(step: Callable[[Any, Any], Any], batches: Iterator[Any]) -> tuple[float, float]:
    """Images per second of the work of a step, and the share of the time that goes to waiting for its input."""
    step(*next(batches))  # traces the graph
    waited, worked, images, steps = 0.0, 0.0, 0, 0
    with put_off_signals() as let_signals_through:
        while steps < _FEWEST_STEPS or waited + worked < profile_files.SECONDS:
            started = time.monotonic()
            pixels, labels = next(batches)
            arrived = time.monotonic()
            step(pixels, labels)
            waited, worked = waited + arrived - started, worked + time.monotonic() - arrived
            images, steps = images + len(labels), steps + 1
            let_signals_through()
    return images / worked, waited / (waited + worked)
