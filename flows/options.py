"""Options that commands of several modules share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[Path, typer.Option(envvar="IMAGEMILL_HOME", help="Folder of the artifacts and records of all runs.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the logs of Prefect and TensorFlow.")]
RegistryUri = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        help="Of an MLflow server or database.",
        show_default="a database in the home",
    ),
]
