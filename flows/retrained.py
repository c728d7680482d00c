"""What came of each retraining, by content and recipe: so that nothing is trained twice, and what was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.config import Recipe
from pipelines.store.artifacts import file_in_place


class Retraining(BaseModel):
    """One retraining.

    Attributes:
        dataset: name of the data set.
        content: digest of the source, see `content_digest`.
        challenger: run folder.
        version: of the model in the registry; None where it waits for the registry.
        promoted: whether it became champion; None where it was judged before.
        reasons: of the gate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    content: str
    challenger: str
    version: int | None = None
    promoted: bool | None = None
    reasons: tuple[str, ...] = ()


def retraining_key(dataset: str, content: str, recipe: Recipe) -> str:
    """A short digest of all that a retraining is made of, but for the champion."""
    text = json.dumps([dataset, content, recipe.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_retraining(home: Path, key: str) -> Retraining | None:
    """What came of a retraining; None where it never came to an end."""
    try:
        return Retraining.model_validate_json(_path(home, key).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_retraining(home: Path, key: str, retraining: Retraining) -> None:
    """Writes it down, in one step.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(_path(home, key)) as temporary:
        temporary.write_text(retraining.model_dump_json(indent=1), encoding="utf-8")


def challenger_folder(home: Path, dataset: str) -> Path:
    """Where the run folder of the last challenger of a data set is; the registry holds those of all."""
    return home / "challengers" / _file_name(dataset)


def lock_path(home: Path, dataset: str) -> Path:
    """Held by whoever retrains a data set in this home."""
    return home / "retrained" / f"{_file_name(dataset)}.lock"


def _file_name(dataset: str) -> str:
    return hashlib.sha256(dataset.encode(errors="surrogateescape")).hexdigest()[:32]


def _path(home: Path, key: str) -> Path:
    return home / "retrained" / f"{key}.json"
