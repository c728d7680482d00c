"""What came of each retraining, by content and recipe: so that nothing is trained twice, and what was cut off goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.config import Recipe
from pipelines.store.artifacts import file_in_place


class Retraining(BaseModel):
    """One retraining.

    Attributes:
        dataset: name of the data set.
        content: digest of the source, see `content_digest`.
        challenger: run folder.
        state: `trained` while the gate and the registry are still to come.
        version: of the model in the registry; None before it has one.
        promoted: whether it became champion; None before that is decided.
        reasons: of the gate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    content: str
    challenger: str
    state: Literal["trained", "done"]
    version: str | None = None
    promoted: bool | None = None
    reasons: tuple[str, ...] = ()


def retraining_key(dataset: str, content: str, recipe: Recipe) -> str:
    """A short digest of all that a retraining is made of, but for the champion."""
    text = json.dumps([dataset, content, recipe.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_retraining(home: Path, key: str) -> Retraining | None:
    """What is known of a retraining; None where it never came as far as a challenger, or that is gone."""
    try:
        known = Retraining.model_validate_json(_path(home, key).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return known if known.state == "done" or Path(known.challenger).is_dir() else None


def write_retraining(home: Path, key: str, retraining: Retraining) -> None:
    """Writes it down, in one step.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(_path(home, key)) as temporary:
        temporary.write_text(retraining.model_dump_json(indent=1), encoding="utf-8")


def new_challenger_folder(home: Path, key: str) -> Path:
    """Where the run folder of a retraining is to be written: never over an earlier one, which may be champion."""
    folders = home / "challengers"
    names = itertools.chain([key], (f"{key}-{number}" for number in itertools.count(2)))
    return next(folders / name for name in names if not (folders / name).exists())


def lock_path(home: Path, dataset: str) -> Path:
    """Held by whoever retrains a data set in this home."""
    return home / "retrained" / f"{hashlib.sha256(dataset.encode(errors='surrogateescape')).hexdigest()[:32]}.lock"


def _path(home: Path, key: str) -> Path:
    return home / "retrained" / f"{key}.json"
