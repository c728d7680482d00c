"""Embed: the frozen part of the network runs once for each view of each image, ever; both phases train on what it made."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.augment.philox import DrawKey, image_ids
from pipelines.augment.policy import build_policy
from pipelines.config import AugmentConfig
from pipelines.contracts import Artifact, Embedded, PreparedImages, StoredActivations, StoredView
from pipelines.data.batches import EVALUATION_BATCH_SIZE
from pipelines.data.prepare import Examples, read_examples
from pipelines.errors import RunError
from pipelines.models.assemble import set_trainable_head, set_trainable_top
from pipelines.models.folding import fold_normalization
from pipelines.models.freeze_line import SplitModel, build_pooling, split_at_freeze_line, weights_digest
from pipelines.models.kept import take_classifier
from pipelines.models.work import count_multiply_adds
from pipelines.progress import SECONDS_BETWEEN_REPORTS, Progress, Report, ignore_progress
from pipelines.signals import put_off_signals
from pipelines.slices import EmbedConfig
from pipelines.store.activations import activation_store, row_bytes
from pipelines.store.artifacts import publish, scratch_folder, write_json
from pipelines.store.rows import Appender, ImageRow, RowReader, RowStore
from pipelines.training.cache_choice import Offer, Showings, choose_stored, count_views, why_off

logger = logging.getLogger(__name__)

# Parts of the names of stores, so that what other code made is not mixed with what this makes; tests/stage_versions.json
# guards both. AUGMENT: of the changed views. PREFIX: of what a frozen part computes besides its weights: how pixels are
# preprocessed, layers that have none.
AUGMENT_VERSION: Final = 2
PREFIX_VERSION: Final = 1
_SECONDS_BETWEEN_SHARDS = 20.0  # at most: of work that a kill -9 undoes
_VIEWS_SEED = 0  # whatever the recipe's: another seed shows the same views in another order


@dataclass(frozen=True)
class _Kind:
    """One kind of activation.

    Attributes:
        folder: of its views, relative to the home.
        shape: of one image's.
        dtype: as stored.
    """

    folder: Path
    shape: tuple[int, ...]
    dtype: str

    def store(self, home: Path, view: str) -> RowStore:
        """Of one view."""
        return activation_store(home, home / self.folder / view, shape=self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class _Frozen:
    """The frozen part.

    Attributes:
        kinds: what it makes: pooled features first, then the activations at the line of phase 2, where these are others.
        for_phase_2: whether the last kind is what phase 2 learns from.
        run: takes images uint8 [B, S, S, 3], at most `EVALUATION_BATCH_SIZE`, to the activations of each kind.
    """

    kinds: tuple[_Kind, ...]
    for_phase_2: bool
    run: Callable[[Any], tuple[Any, ...]]


@dataclass(frozen=True)
class _View:
    """One view of some images, and how to make their pixels."""

    name: str
    examples: Examples
    pixels: Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def embed(home: Path, prepared: PreparedImages, *, config: EmbedConfig, report: Report = ignore_progress) -> Embedded:
    """Makes sure that the activation store holds each view of the training images, and the validation images as they are.

    What is stored, and why, is said in a line. Nothing that the store holds is made again.

    Raises:
        WeightsUnavailableError: pretrained weights can't be had.
        RunError: an activation is beyond the range of `cache.dtype`, or the disk is full; what was finished stays.
    """

    def say(line: str, level: int = logging.WARNING) -> None:
        logger.log(level, "%s", line)
        report(Progress(0, 1, "images", line, milestone=True))

    views: list[_View] = []
    reason = why_off(config)
    frozen, line = None, f"cache off: {reason}"
    if reason is None:
        splits = {split: read_examples(home, prepared, split) for split in ("train", "validation")}
        views = _make_views(splits, config)
        showings = Showings(
            images=sum(len(examples) for examples, _ in splits.values()),
            rows=sum(len(view.examples) for view in views),
            pixel_bytes=3 * prepared.image_size**2,
        )
        frozen, line = _choose(prepared, config, showings)
    say(line, logging.INFO)
    if frozen is None:
        return Embedded(artifact=_publish(home, {"stored": line}), features=None, activations=None)
    stores = [{view.name: kind.store(home, view.name) for view in views} for kind in frozen.kinds]
    for own in stores:
        for name, store in own.items():
            for shard in store.remove_damaged():
                say(f"shard {shard} of the activation store ({name}) is damaged; its activations are made again")
    _fill(frozen, stores, views, say, report)
    stored = [_describe(home, prepared, kind, own, views) for kind, own in zip(frozen.kinds, stores, strict=True)]
    artifact = _publish(home, {"stored": line, "kinds": [each.artifact.digest for each in stored]})
    return Embedded(artifact=artifact, features=stored[0], activations=stored[-1] if frozen.for_phase_2 else None)


def _make_views(splits: dict[str, tuple[Examples, RowReader]], config: EmbedConfig) -> list[_View]:
    """The plain view of both splits, then the changed ones of the training split."""
    plain = [_View("plain", examples, reader.gather) for examples, reader in splits.values()]
    examples, reader = splits["train"]
    ids, policy = image_ids(examples.table["sha256"]), build_policy(config.augment)

    def changed(view: int) -> _View:
        def pixels(chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
            return policy.augment(reader.gather(chosen), DrawKey(_VIEWS_SEED, view, ids[chosen]))

        return _View(f"view{view}-{_augment_digest(config.augment)}", examples, pixels)

    return plain + [changed(view) for view in range(1, count_views(config.augment, config.cache.views))]


def _augment_digest(augment: AugmentConfig) -> str:
    content = json.dumps([AUGMENT_VERSION, augment.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _choose(prepared: PreparedImages, config: EmbedConfig, showings: Showings) -> tuple[_Frozen | None, str]:
    """The frozen part, or None where its work is not stored, and a line that says so."""
    side, classes = prepared.image_size, len(prepared.classes)
    classifier = take_classifier(config.model, image_size=side, num_classes=classes, seed=config.seed)
    set_trainable_head(classifier)
    head, line = split_at_freeze_line(classifier), None
    if head is None:
        return None, "cache off: no layer is frozen in phase 1"
    if config.layers is not None:
        set_trainable_top(classifier, layers=config.layers)
        line = split_at_freeze_line(classifier)
    kinds = [_kind(prepared, config, part) for part in (head, line) if part is not None]
    offers = [_offer(config, part) for part in (head, line) if part is not None]
    stored, why = choose_stored(config, showings, features=offers[0], activations=offers[1] if line is not None else None)
    if stored == "off":
        return None, f"cache off: {why}"
    alike = line is not None and line.position == head.position  # layers that learn, but have no weights that may
    if stored == "features" or line is None or alike:
        run = _compile(prepared, config, [head.prefix])
        return _Frozen((kinds[0],), alike and stored == "activations", run), f"cache {stored}: {showings.rows:,} rows, {why}"
    run = _compile(prepared, config, [line.prefix, build_pooling(classifier, line.position)])
    shape = "x".join(map(str, line.shape))
    return _Frozen(tuple(kinds), True, run), f"cache activations: {showings.rows:,} rows of {shape} at {line.line}, {why}"


def _offer(config: EmbedConfig, part: SplitModel) -> Offer:
    return Offer(row_bytes(part.shape, config.cache.dtype), count_multiply_adds(part.prefix))


def _kind(prepared: PreparedImages, config: EmbedConfig, part: SplitModel) -> _Kind:
    backbone, pooling = config.model.backbone, type(part.prefix.layers[-1]).__name__  # of features; else the network's own name
    digest = weights_digest(part.prefix, name=f"v{PREFIX_VERSION}/{backbone}/{part.position}/{pooling}")[:24]
    folder = Path("activations", f"{backbone}-{digest}-{config.cache.dtype}", Path(prepared.store).name)
    return _Kind(folder, part.shape, config.cache.dtype)


def _compile(prepared: PreparedImages, config: EmbedConfig, parts: list[keras.Model]) -> Callable[[Any], tuple[Any, ...]]:
    """A graph that takes images through frozen parts in turn and gives what each made, the last one's first.

    Always so many at once, the last ones filled up: which kernels sum up, and in which order, depends on the number, and a run
    that was killed goes on with other batches than an undisturbed one has.
    """
    shape = (EVALUATION_BATCH_SIZE, prepared.image_size, prepared.image_size, 3)
    parts = [fold_normalization(part) for part in parts]

    def run(images: Any) -> tuple[Any, ...]:
        made, out = [], tf.cast(images, tf.float32)
        for part in parts:
            out = part(out, training=False)
            made.append(tf.cast(out, config.cache.dtype))
        return tuple(reversed(made))

    graph = tf.function(run, input_signature=[tf.TensorSpec(shape, tf.uint8)], jit_compile=False, autograph=False)

    def run_some(images: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
        room = [(0, EVALUATION_BATCH_SIZE - len(images)), (0, 0), (0, 0), (0, 0)]
        return tuple(np.asarray(each)[: len(images)] for each in graph(np.pad(images, room)))

    return run_some


def _fill(
    frozen: _Frozen, stores: list[dict[str, RowStore]], views: list[_View], say: Callable[..., None], report: Report
) -> None:
    """Embeds what any store lacks of any view, batch by batch; between two batches it may be interrupted.

    All stores are flushed together: an image that only one of them has goes through the network again.
    """
    missing = [_missing(view, [own[view.name] for own in stores]) for view in views]
    total, done, started, reported = sum(len(chosen) for chosen, _ in missing), 0, time.monotonic(), 0.0
    needed = sum(len(view.examples.table["sha256"].unique()) for view in views)
    if total < needed:
        say(f"{total:,} of {needed:,} rows are new, the others are stored", logging.INFO)
    flushed = started
    with put_off_signals() as let_signals_through:
        for view, (chosen, lacks) in zip(views, missing, strict=True):
            digests = view.examples.table["sha256"].take(pa.array(chosen)).to_pylist()
            with ExitStack() as stack:
                appenders = [stack.enter_context(own[view.name].appending()) for own in stores]
                for first in range(0, len(chosen), EVALUATION_BATCH_SIZE):
                    batch = slice(first, first + EVALUATION_BATCH_SIZE)
                    made = frozen.run(view.pixels(chosen[batch]))
                    for appender, activations, lacking in zip(appenders, made, lacks, strict=True):
                        _append(appender, digests[batch], activations, lacking[batch])
                    done += len(chosen[batch])
                    now = time.monotonic()
                    if now - flushed >= _SECONDS_BETWEEN_SHARDS:
                        flushed = now
                        for appender in appenders:
                            appender.flush()
                    if now - reported >= SECONDS_BETWEEN_REPORTS or done == total:
                        reported = now
                        report(Progress(done, total, "images", view.name, images_per_second=done / max(now - started, 1e-6)))
                    let_signals_through()


def _missing(view: _View, stores: list[RowStore]) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """Examples that any of the stores lacks, each content once, and of each store which of these it lacks."""
    column = view.examples.table["sha256"]
    values = column.unique()
    first = pc.index_in(values, value_set=column).to_numpy().astype(np.int64)
    lacking = [store.locate(values).shard < 0 for store in stores]
    wanted = np.logical_or.reduce(lacking)
    return first[wanted], [each[wanted] for each in lacking]


def _append(appender: Appender, digests: list[str], activations: NDArray[Any], lacking: NDArray[np.bool_]) -> None:
    if not np.isfinite(activations).all():
        raise RunError(
            f"an activation is beyond the range of {activations.dtype}; set `cache.dtype` to float32, or `cache.mode` to off"
        )
    for digest, row, wanted in zip(digests, activations, lacking, strict=True):
        if wanted:
            appender.append(ImageRow(digest, row.tobytes()))


def _describe(
    home: Path, prepared: PreparedImages, kind: _Kind, stores: dict[str, RowStore], views: list[_View]
) -> StoredActivations:
    """Where everything lies now."""
    needed: dict[str, list[pa.ChunkedArray]] = {}
    for view in views:
        needed.setdefault(view.name, []).extend(view.examples.table["sha256"].chunks)
    stored = [
        StoredView(store=(kind.folder / name).as_posix(), shards=stores[name].locate(pa.chunked_array(chunks)).used_shards())
        for name, chunks in needed.items()
    ]
    content = {"prepared": prepared.artifact.digest, "views": [view.store for view in stored]}
    return StoredActivations(artifact=_publish(home, content), shape=kind.shape, dtype=kind.dtype, views=tuple(stored))


def _publish(home: Path, content: dict[str, Any]) -> Artifact:
    with scratch_folder(home) as folder:
        write_json(folder / "activations.json", content)
        return publish(home, "embed", folder)
