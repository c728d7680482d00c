"""A finished run that is to become a version of a registered model: what it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pipelines.config import Recipe
from pipelines.contracts import Candidate, ExportedModel, ImageIndex
from pipelines.store.artifacts import file_digest

# What decides where a model goes and whether it is good enough, and not what it is.
_NO_PART_OF_THE_MODEL = {"registry", "gate"}
# What MLflow puts beside the files of a run folder, some of it only when it loads the model.
MODEL_FILE = "MLmodel"
_MLFLOW_FILES = frozenset({MODEL_FILE, "registered_model_meta"})


def describe_candidate(
    recipe: Recipe, index: ImageIndex, exported: ExportedModel, *, dataset: str, code: Mapping[str, str]
) -> Candidate:
    """A candidate; the same artifacts and the same recipe give the same content digest.

    Args:
        recipe: whole.
        index: of the images.
        exported: the model.
        dataset: the data set's name.
        code: names and versions of the code that made the model, by what they are.
    """
    settings = recipe.model_dump(mode="json")
    model = {name: value for name, value in settings.items() if name not in _NO_PART_OF_THE_MODEL}
    return Candidate(
        name=registered_name(recipe, dataset),
        content=_digest([exported.artifact.digest, index.artifact.digest, model]),
        data=index.artifact.digest,
        gate=_digest(settings.get("gate")),
        code=dict(code),
    )


def registered_name(recipe: Recipe, dataset: str) -> str:
    """Of the registered model that a recipe's runs on a data set are versions of."""
    return recipe.registry.name or model_name(dataset)


def model_name(dataset: str) -> str:
    """The data set's name as that of a registered model, in which MLflow allows no slash, no colon and no way up."""
    name = dataset.replace("/", "-").replace(":", "-").strip()
    return name if name.strip(".") else f"model-{name}"


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of all files, those left out that MLflow adds."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_digest(folder / name)} {name}" for name in names if name not in _MLFLOW_FILES]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
