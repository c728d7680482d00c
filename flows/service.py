"""The configured Prefect server, for the commands that are about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.surroundings import QUIET_PREFECT, explain_no_answer
from pipelines.errors import InputError, RunError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def quieten(*, verbose: bool, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets, before Prefect is imported, what keeps it from talking: to its maker, and on the terminal unless `verbose`."""
    for name, value in {**QUIET_PREFECT, "PREFECT_LOGGING_LEVEL": "INFO" if verbose else "CRITICAL"}.items():
        environment.setdefault(name, value)


def configured_url() -> str | None:
    """Address of the API of the configured server, or None."""
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    return url


@contextmanager
def connect() -> Iterator[SyncPrefectClient]:
    """A client of the configured server, which has answered.

    Raises:
        InputError: none is configured.
        RunError: it does not answer, or wants other credentials.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    url = configured_url()
    if not url:
        raise InputError(
            "no Prefect server is configured: set `PREFECT_API_URL` (such as http://127.0.0.1:4200/api), or choose a Prefect"
            " profile that does; docs/service.md says how to run one"
        )
    with get_client(sync_client=True) as client:
        try:
            client.hello().raise_for_status()
        except HTTPError as error:
            raise RunError(explain_no_answer(error, url)) from error
        yield client
