"""What each retraining began with and what came of it, by content and recipe.

So nothing is trained twice, and what was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.config import Recipe
from pipelines.run_folder import MODEL
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


class Start(BaseModel):
    """What a retraining began with.

    Attributes:
        folder: run folder of the champion whose weights it took; None where there was none to take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str | None

    @property
    def path(self) -> Path | None:
        """The folder."""
        return None if self.folder is None else Path(self.folder)

    @property
    def is_there(self) -> bool:
        """Whether the same beginning can be made again."""
        return self.path is None or (self.path / MODEL).is_file()


def read_start(home: Path, key: str) -> Start | None:
    """What a retraining that has not ended began with; None where it never began, or has ended."""
    try:
        return Start.model_validate_json(_start_path(home, key).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_start(home: Path, key: str, start: Start) -> None:
    """Writes it down, in one step, before there is anything to go on with.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(_start_path(home, key)) as temporary:
        temporary.write_text(start.model_dump_json(), encoding="utf-8")


def read_retraining(home: Path, key: str) -> Retraining | None:
    """What came of a retraining; None where it never came to an end."""
    try:
        return Retraining.model_validate_json(_path(home, key).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_retraining(home: Path, key: str, retraining: Retraining) -> None:
    """Writes it down, in one step; what it began with is no longer needed.

    Raises:
        RunError: no space left on the device.
    """
    with file_in_place(_path(home, key)) as temporary:
        temporary.write_text(retraining.model_dump_json(indent=1), encoding="utf-8")
    _start_path(home, key).unlink(missing_ok=True)


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


def _start_path(home: Path, key: str) -> Path:
    return home / "retrained" / f"{key}.start"
