"""Where the registry is, and a client for it that fails soon and says nothing by itself.

Importing MLflow takes seconds, so that is done when a client is asked for, and not before the address was seen to answer.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pipelines.errors import ImagemillError, RegistryError, RegistryUnreachableError, one_line
from pipelines.quick_imports import quick_imports
from pipelines.registry.embedded import artifacts_uri, embedded_database, embedded_uri, open_embedded

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANSWER_SECONDS = 5.0  # in which a server must answer before a run goes on without it
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_TOO_MANY_REQUESTS = 429
# By name, since none of these libraries is to be imported for it. OSError: a place that can't be written; ImportError: a
# database whose driver is not installed.
_REGISTRY_ERRORS = frozenset(
    {
        "mlflow.MlflowException",
        "requests.RequestException",
        "sqlalchemy.SQLAlchemyError",
        "builtins.OSError",
        "builtins.ImportError",
    }
)

# Read by MLflow when it is imported or used. What the user has set stays.
QUIET_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # By default 7 retries that take about 4 minutes, each try up to 120 s: a run would stand still for that long.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Registry:
    """An MLflow registry. Making one opens nothing.

    Attributes:
        home: absolute path of the home.
        uri: of a server or a database, as MLflow takes it; None for the SQLite database in the home.
    """

    home: Path
    uri: str | None = None

    @property
    def folder(self) -> Path:
        """What the home remembers of registries: records, queued runs, fetched models."""
        return self.home / "registry"

    @property
    def address(self) -> str:
        """The registry in words, without a password; it stays the same where the home is moved."""
        if self.uri is None:
            return "the home's registry"
        parts = urlsplit(self.uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def exists(self) -> bool:
        """Whether anything was ever registered in the home's own database; of others that is not known."""
        return self.uri is not None or embedded_database(self.home).is_file()

    @property
    def is_far(self) -> bool:
        """Whether it is on a server, which may be away."""
        return bool(urlsplit(self.uri or "").hostname) or (self.uri or "").startswith("databricks")

    @property
    def artifact_root(self) -> str | None:
        """Where artifacts of new experiments go; None where a server decides."""
        return None if (self.uri or "").startswith(("http", "databricks")) else artifacts_uri(self.home)

    @property
    def client_uri(self) -> str:
        """For MLflow's own tools, such as `mlflow ui --backend-store-uri`."""
        return self.uri or embedded_uri(self.home)


@contextmanager
def connected(registry: Registry) -> Iterator[MlflowClient]:
    """A client for the block; what MLflow raises in it becomes an error of ours.

    Raises:
        RegistryUnreachableError: nothing answers, or what answers is in trouble of its own.
        RegistryError: the registry refused something.
    """
    check_answers(registry)
    _quieten()
    with registry_errors(registry):
        uri = open_embedded(registry.home) if registry.uri is None else registry.uri
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri, registry_uri=uri)


def import_ahead() -> None:
    """Imports MLflow in a thread, beside what this process waits for: it takes two seconds."""
    _quieten()
    threading.Thread(target=_import_mlflow, daemon=True).start()


def _import_mlflow() -> None:
    with quick_imports():
        import mlflow  # noqa: F401


def _quieten() -> None:
    for name, value in QUIET_MLFLOW.items():
        os.environ.setdefault(name, value)


def check_answers(registry: Registry) -> None:
    """Knocks at the registry's door: MLflow itself tries a database that is away for minutes.

    Raises:
        RegistryUnreachableError: nobody opens within `ANSWER_SECONDS`.
    """
    parts = urlsplit(registry.uri or "")
    if not parts.hostname:
        return
    try:
        if parts.scheme in ("http", "https"):
            from httpx import get  # it knows of proxies

            # Not whether to trust it is asked here, but whether it is there.
            get(f"{registry.address.rstrip('/')}/health", timeout=ANSWER_SECONDS, verify=False)
        elif port := parts.port or _DATABASE_PORTS.get(parts.scheme.partition("+")[0]):
            socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise _unreachable(registry, error) from error


@contextmanager
def registry_errors(registry: Registry) -> Iterator[None]:
    """Turns what MLflow and the libraries below it raise into one line.

    Raises:
        RegistryUnreachableError: the connection broke, or the server is in trouble of its own.
        RegistryError: the registry refused something, or what it needs on this machine is missing.
    """
    try:
        yield
    except ImagemillError:
        raise
    except Exception as error:
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
        if not kinds & _REGISTRY_ERRORS:
            raise
        if registry.is_far and _is_trouble(error):
            raise _unreachable(registry, error) from error
        raise RegistryError(f"{registry.address} can't be used: {one_line(error)}") from error


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that a model, a version or a run does not exist."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _is_trouble(error: Exception) -> bool:
    """Whether the request was not what was wrong."""
    get_status: Any = getattr(error, "get_http_status_code", lambda: 503)  # of MLflow's own errors; others are of connections
    return bool((status := get_status()) >= 500 or status == _TOO_MANY_REQUESTS)


def _unreachable(registry: Registry, error: Exception) -> RegistryUnreachableError:
    return RegistryUnreachableError(
        f"the registry at {registry.address} does not answer ({one_line(error)}); start it, or name another"
    )
