"""Which code made a model."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("tensorflow", "keras")


def code_versions(stages: Mapping[str, int]) -> dict[str, str]:
    """The versions of imagemill, of its stages and of the libraries that train, and the commit of a checkout.

    Args:
        stages: the code version of each stage.
    """
    versions = {"stages": " ".join(f"{name}={number}" for name, number in stages.items())}
    for name in ("imagemill", *_LIBRARIES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if commit := _commit(Path(__file__).parents[2]):
        versions["commit"] = commit
    return versions


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists() or (git := shutil.which("git")) is None:
        return None
    asked = subprocess.run([git, "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
