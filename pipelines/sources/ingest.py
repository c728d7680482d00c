"""Ingest: look at every file once, quarantine the bad ones by name and reason, and draw the splits."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import SPLITS
from pipelines.contracts import ImageIndex, Listing
from pipelines.errors import ImageDecodeError, InputError, quoted
from pipelines.progress import Progress, Report, ignore_progress
from pipelines.slices import IngestConfig
from pipelines.sources.duplicates import near_equal_groups
from pipelines.sources.examine import ImageFacts, examine_image
from pipelines.sources.facts import Outcome, extend_facts, facts_path, read_facts
from pipelines.sources.folder import (
    FoundFile,
    check_class_counts,
    read_unchanged,
    splits_to_draw,
    train_stays,
)
from pipelines.sources.scan import read_listing
from pipelines.sources.splits import SplitItem, assign_splits, extend_ledger, ledger_lock, read_ledger
from pipelines.sources.threads import map_chunks
from pipelines.store.artifacts import publish, scratch_folder
from pipelines.store.index import BAD, OK, usable, write_index

logger = logging.getLogger(__name__)

BAD_FILES_SHOWN = 50


def ingest(home: Path, root: Path, listing: Listing, *, config: IngestConfig, report: Report = ignore_progress) -> ImageIndex:
    """Builds the index of a scanned source and publishes it; new split assignments go to the home's ledger.

    Raises:
        InputError: no readable image, too many bad files (all are listed), or a class with too few images.
        SourceChangedError: a file is not what the scan saw.
    """
    facts = facts_path(home, max_pixels=config.max_pixels)
    rows = examine_files(root, read_listing(home, listing), max_pixels=config.max_pixels, facts=facts, report=report)
    check_bad_files(rows, max_bad_fraction=config.max_bad_fraction)
    group_near_equal(rows, max_bits=config.split.near_equal_bits)
    ledger = ledger_path(home, config)
    with ledger_lock(ledger):  # else two runs that overlap could put one image into two splits
        draw_splits(rows, listing.classes, config=config, assigned=read_ledger(ledger))
        extend_ledger(ledger, {row["sha256"]: row["split"] for row in usable(rows)})
    return publish_index(home, listing.classes, rows)


def publish_index(home: Path, classes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> ImageIndex:
    """Publishes finished rows of an index, whose splits are drawn."""
    with scratch_folder(home) as folder:
        write_index(folder / "index.parquet", rows)
        artifact = publish(home, "ingest", folder)
    good = usable(rows)
    counts = Counter(row["split"] for row in good)
    return ImageIndex(
        artifact=artifact,
        classes=tuple(classes),
        examples={split: counts[split] for split in SPLITS},
        bad_files=len(rows) - len(good),
    )


def ledger_path(home: Path, config: IngestConfig) -> Path:
    """Where the split assignments of a data set under these fractions and this seed are kept."""
    split = config.split.model_dump_json(exclude={"near_equal_bits"})  # it may change; what was assigned stays
    settings = f"{config.dataset}\0{split}"
    return home / "splits" / f"{hashlib.sha256(settings.encode()).hexdigest()[:32]}.parquet"


def group_near_equal(rows: Sequence[dict[str, Any]], *, max_bits: int) -> None:
    """Numbers, in place, the groups of images among the usable rows whose hashes differ in at most `max_bits` bits."""
    good = [row for row in rows if row["status"] == OK]
    groups = near_equal_groups([row["perceptual_hash"] for row in good], max_bits=max_bits)
    for row, group in zip(good, groups, strict=True):
        row["group"] = int(group)


def draw_splits(
    rows: Sequence[dict[str, Any]], classes: Sequence[str], *, config: IngestConfig, assigned: Mapping[str, str]
) -> None:
    """Fills in, in place, the split of each usable row that has to be drawn.

    Raises:
        InputError: a class has too few usable images for its splits.
    """
    good = [row for row in rows if row["status"] == OK]
    given = {row["split"] for row in good}
    drawn = splits_to_draw(given, fractions=config.split)
    check_class_counts(classes, [FoundFile(row["path"], row["label"], row["split"]) for row in good], fractions=config.split)
    open_rows = [row for row in good if row["split"] in (None, "train")]
    items = [SplitItem(row["sha256"], row["label"], row["group"]) for row in open_rows]
    fractions = {split: getattr(config.split, split) for split in drawn}
    if train_stays(given):
        assigned = {**assigned, **{row["sha256"]: "train" for row in open_rows if row["split"] == "train"}}
    splits = assign_splits(items, fractions=fractions, seed=config.split.seed, assigned=assigned)
    for row, split in zip(open_rows, splits, strict=True):
        row["split"] = split
    _check_splits_filled(good, classes)


def examine_files(
    root: Path,
    files: Sequence[FoundFile],
    *,
    max_pixels: int,
    facts: Path | None = None,
    report: Report = ignore_progress,
) -> list[dict[str, Any]]:
    """Opens each content that was never seen, in parallel, and returns each file's row of the index, its split still open.

    Args:
        root: the source.
        files: of the source, with their digests.
        max_pixels: see `examine_image`.
        facts: table of the contents that were examined before, see `facts_path`; those of this call are added to it, also
            when it fails in the middle.
        report: told how many files are settled.

    Raises:
        SourceChangedError: a file's bytes are not those that the scan saw.
    """
    known = read_facts(facts, {file.sha256 for file in files if file.sha256}) if facts else {}
    unknown = {file.sha256: file for file in files if file.sha256 and file.sha256 not in known}
    found: dict[str, Outcome] = {}
    settled = len(files) - len(unknown)
    report(Progress(settled, len(files), "files"))
    try:
        for outcomes in map_chunks(lambda item: (item[0], _examine(root, item[1], max_pixels)), list(unknown.items())):
            found.update(outcomes)
            report(Progress(settled + len(found), len(files), "files"))
    finally:
        if facts:
            extend_facts(facts, found)
    known |= found
    rows = [_index_row(file, file.problem if file.sha256 is None else known[file.sha256]) for file in files]
    for row in rows:
        if row["status"] == BAD:
            logger.warning("quarantined %s: %s", quoted(row["path"]), row["reason"])
    return rows


def check_bad_files(rows: Sequence[Mapping[str, Any]], *, max_bad_fraction: float, shown: int = BAD_FILES_SHOWN) -> None:
    """Stops when nothing is readable, or more of the files are bad than the recipe allows.

    Raises:
        InputError: with the list of bad files and reasons, `shown` of them at most.
    """
    bad = [f"  {quoted(row['path'])}: {row['reason']}" for row in rows if row["status"] == BAD]
    if not bad or (len(bad) < len(rows) and len(bad) <= max_bad_fraction * len(rows)):
        return
    if len(bad) == len(rows):
        summary = f"`SOURCE` has no readable image; all {len(bad)} files are bad"
    else:
        summary = (
            f"{len(bad)} of {len(rows)} files are bad, more than `max_bad_fraction` ({max_bad_fraction:g}) allows;"
            " mend or remove them, or raise it"
        )
    if not shown:
        raise InputError(summary)
    more = [f"  ... and {len(bad) - shown} more"] if len(bad) > shown else []
    raise InputError("\n".join([f"{summary}:", *bad[:shown], *more]))


def _examine(root: Path, file: FoundFile, max_pixels: int) -> Outcome:
    contents = read_unchanged(root, file.path, file.sha256)
    try:
        return examine_image(contents, max_pixels=max_pixels)
    except ImageDecodeError as error:
        return str(error)


def _index_row(file: FoundFile, outcome: Outcome | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": file.path,
        "label": file.label,
        "split": file.split,
        "bytes": file.size_bytes,
        "sha256": file.sha256,
        "status": OK,
        "reason": None,
    }
    if not isinstance(outcome, ImageFacts):
        return row | {"status": BAD, "split": None, "reason": outcome}
    return row | {
        "width": outcome.width_px,
        "height": outcome.height_px,
        "format": outcome.format,
        "mode": outcome.mode,
        "orientation": outcome.orientation,
        "perceptual_hash": outcome.perceptual_hash,
    }


def _check_splits_filled(good: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
    present = Counter((row["label"], row["split"]) for row in good)
    splits = sorted({row["split"] for row in good})
    if missing := [f"{label!r} in `{split}`" for label in classes for split in splits if not present[label, split]]:
        raise InputError(
            f"no image could be drawn for class {', '.join(missing)}; add images that are not near-equal to others"
        )
