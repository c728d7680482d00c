"""A registered model as a run folder on this machine: whole and unaltered, or an error."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from pipelines.errors import InputError, RunError
from pipelines.registry.candidate import folder_digest
from pipelines.registry.connection import Registry, connected
from pipelines.registry.promote import check_model, check_version
from pipelines.registry.versions import DIGEST_TAG
from pipelines.store.artifacts import folder_in_place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "models:/"


@dataclass(frozen=True)
class Reference:
    """What `models:/NAME@ALIAS` or `models:/NAME/VERSION` means; one of alias and version is None."""

    name: str
    alias: str | None
    version: int | None


def parse_reference(text: str) -> Reference:
    """Reads a reference.

    Raises:
        InputError: it is none.
    """
    by_version = re.fullmatch(r"models:/([^/:]+)/([0-9]+)", text)
    by_alias = re.fullmatch(r"models:/([^/:]+)@([^/@:]+)", text)
    if by_version:
        return Reference(by_version[1], None, int(by_version[2]))
    if by_alias:
        return Reference(by_alias[1], by_alias[2], None)
    raise InputError(f"`MODEL` of a registry is models:/NAME@ALIAS or models:/NAME/VERSION; received {text!r}")


def fetch(registry: Registry, reference: Reference) -> Path:
    """The run folder of a registered model, fetched where it is not here yet.

    It is checked against the digest that its version has carried since it was made. Artifacts that lie on this machine are
    used where they are; others are kept in the home.

    Raises:
        InputError: there is no such model, version or alias.
        RunError: the registry does not answer, or what it holds is not what was registered.
    """
    if not registry.exists:
        raise InputError(f"no model was registered in {str(registry.home)!r} yet; `--home` and `--registry` say where to look")
    with connected(registry) as client:
        version = _find(client, reference)
        digest = version.tags.get(DIGEST_TAG)
        if digest is None:
            raise InputError(f"version {version.version} of `{version.name}` was not registered by imagemill")
        source = urlsplit(version.source)
        if source.scheme in ("", "file"):
            return _verified(Path(url2pathname(source.path)), digest, version)
        key = hashlib.sha256(f"{registry.address} {version.name}".encode()).hexdigest()[:16]
        kept = registry.folder / "fetched" / key / str(version.version)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_suffix(".lock")):
            if not kept.is_dir() or folder_digest(kept) != digest:
                _download(registry, version, digest, kept)
            os.utime(kept)  # `imagemill clean` goes by when it was last asked for
        return kept


def _find(client: MlflowClient, reference: Reference) -> ModelVersion:
    aliases = check_model(client, reference.name).aliases
    number = reference.version
    if number is None:
        number = aliases.get(reference.alias)
        if number is None:
            names = ", ".join(sorted(aliases)) or "none"
            raise InputError(f"`{reference.name}` has no alias {reference.alias!r}; it has {names}")
    check_version(client, reference.name, int(number))
    return client.get_model_version(reference.name, str(number))


def _download(registry: Registry, version: ModelVersion, digest: str, target: Path) -> None:
    from mlflow.artifacts import download_artifacts

    with folder_in_place(target) as temporary:
        got = Path(download_artifacts(artifact_uri=version.source, dst_path=str(temporary), tracking_uri=registry.uri))
        _verified(got, digest, version)
        for path in list(got.iterdir()) if got != temporary else []:
            shutil.move(path, temporary / path.name)
        if got != temporary:
            got.rmdir()


def _verified(folder: Path, digest: str, version: ModelVersion) -> Path:
    if not folder.is_dir() or folder_digest(folder) != digest:
        raise RunError(
            f"what the registry holds of version {version.version} of `{version.name}` is gone or altered, or lies where this"
            " machine can't read it; take another version"
        )
    return folder
