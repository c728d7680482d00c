"""A flow that a worker can run in a second."""

from __future__ import annotations

from pathlib import Path

from prefect import flow


@flow
def take_note(folder: str, text: str) -> None:
    """Writes a file of that name."""
    (Path(folder) / text).touch()
