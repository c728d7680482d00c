"""Where finished runs are registered."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pipelines.config.section import Section

# Of MLflow's stores: a server, Databricks, or one of its databases. A folder (`file:`) holds no aliases that can be trusted.
_SCHEMES = ("http://", "https://", "databricks", "sqlite:///", "postgresql", "mysql", "mssql")


class RegistryConfig(Section):
    """The MLflow registry that a run is logged in and its model becomes a version of."""

    enabled: bool = True
    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern="^[^/:]+$",
        description="of the registered model; default: the data set's name",
    )
    uri: str | None = Field(
        None, description="of an MLflow server or database; default: MLFLOW_TRACKING_URI, or a SQLite database in the home"
    )

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, uri: str | None) -> str | None:
        if uri is not None:
            check_uri(uri)
        return uri


def check_uri(uri: str) -> None:
    """Refuses what MLflow would take for a folder.

    Raises:
        ValueError: what was received, and what an address looks like.
    """
    if not uri.startswith(_SCHEMES) or not _has_a_port_or_none(uri):
        raise ValueError(f"must be an address such as http://HOST:5000 or sqlite:////PATH/mlflow.db; received {uri!r}")


def _has_a_port_or_none(uri: str) -> bool:
    try:
        return (urlsplit(uri).port or 1) > 0
    except ValueError:
        return False
