"""The configured Prefect server, for the commands that are about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from flows.surroundings import QUIET_PREFECT
from pipelines.errors import InputError, RunError, one_line

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
    from httpx import HTTPError, HTTPStatusError
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
            if isinstance(error, HTTPStatusError) and error.response.status_code == HTTPStatus.UNAUTHORIZED:
                raise RunError(
                    f"the Prefect server at {url} refuses these credentials; set `PREFECT_API_AUTH_STRING` to its user:password"
                ) from error
            raise RunError(f"the Prefect server at {url} does not answer ({one_line(error)}); start it") from error
        yield client
