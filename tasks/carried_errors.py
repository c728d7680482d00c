"""Exceptions as JSON and back: how an error of the child process becomes one of the flow."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from pipelines import errors


class ChildTraceback(Exception):  # noqa: N818 (it is never raised)
    """Where in the child an error came from, to be printed with it."""


def describe_error(error: Exception) -> dict[str, Any]:
    """An exception as JSON, from which `make_error` makes the same again where it is one of ours or the system's."""
    described: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": str(error),
        "notes": list(getattr(error, "__notes__", [])),
        "traceback": "".join(traceback.format_exception(error)),
    }
    if isinstance(error, OSError):
        described |= {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    return described


def make_error(described: Mapping[str, Any]) -> Exception:
    """The exception that `describe_error` described."""
    kind, message = described["kind"], described["message"]
    own = getattr(errors, kind, None)
    error: Exception
    if isinstance(own, type) and issubclass(own, errors.ImagemillError):
        error = own(message)
    elif described.get("errno") is not None:
        error = OSError(described["errno"], described["strerror"], described["filename"])
    else:
        error = RuntimeError(f"{kind}: {message}")
    for note in described["notes"]:
        error.add_note(note)
    error.__cause__ = ChildTraceback(described["traceback"])
    return error
