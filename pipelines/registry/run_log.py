"""What of a run MLflow is told: its recipe as parameters, every epoch, the final figures, and the run folder itself."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow.parquet as pq
import yaml

from pipelines.contracts import Candidate
from pipelines.registry.candidate import MODEL_FILE
from pipelines.registry.versions import CONTENT_TAG, DATA_TAG
from pipelines.run_folder import CONFIG, HISTORY, TIMINGS
from pipelines.store.artifacts import read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MODEL_FOLDER = "model"  # of a run's artifacts: the run folder, and what makes it a model of MLflow's
_PICTURES = "pictures"
_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000  # MLflow's limits
_VALUE_CHARACTERS = 500  # the lowest limit of a parameter that any server since MLflow 1 has


def log_run(client: MlflowClient, candidate: Candidate, folder: Path, *, artifact_root: str | None) -> Run:
    """Logs a run folder as a run of the experiment that is named as the model; an earlier try that was cut off is removed.

    Args:
        client: of the registry.
        candidate: what the run is known by.
        folder: a run folder.
        artifact_root: where a new experiment's artifacts go; None leaves that to the server.

    Returns:
        The run, finished. One of this content that is finished already is taken as it is.
    """
    experiment = _experiment(client, candidate.name, artifact_root)
    tag = f"tags.`{CONTENT_TAG}` = '{candidate.content}'"
    for earlier in client.search_runs([experiment], tag):
        if earlier.info.status == "FINISHED":
            return earlier
        client.delete_run(earlier.info.run_id)
    run = client.create_run(experiment, tags=_tags(candidate), run_name=f"{candidate.name} {candidate.data[:8]}")
    run_id, created_ms = run.info.run_id, run.info.start_time
    _log_numbers(client, run_id, folder, created_ms, code=candidate.code)
    _log_dataset(client, run_id, candidate)
    for picture in sorted(folder.glob("*.png")):
        client.log_artifact(run_id, str(picture), _PICTURES)
    client.log_artifact(run_id, str(folder / CONFIG))
    client.log_artifacts(run_id, str(folder), MODEL_FOLDER)
    client.log_text(run_id, _model_file(run_id), f"{MODEL_FOLDER}/{MODEL_FILE}")
    client.set_terminated(run_id)
    return client.get_run(run_id)


def recipe_params(folder: Path) -> dict[str, str]:
    """Every value of the recipe under its dotted key, cut where it is longer than MLflow takes; config.yaml has all of it."""
    recipe = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return {key: _cut(value) for key, value in _flatten(recipe)}


def epoch_metrics(folder: Path) -> list[dict[str, float]]:
    """The figures of each epoch, of all phases in order: the step of the first is 1."""
    rows = pq.read_table(folder / HISTORY).to_pylist()
    return [{name: float(value) for name, value in row.items() if isinstance(value, float)} for row in rows]


def final_metrics(folder: Path) -> dict[str, float]:
    """The figures of metrics.json, each with the name of its split in front, and the run's seconds."""
    metrics = read_json(folder / "metrics.json")
    low, high = metrics["accuracy_ci95"]
    figures = {"accuracy": metrics["accuracy"], "accuracy_low": low, "accuracy_high": high, "loss": metrics["loss"]}
    figures |= {f"{average}_f1": metrics[average]["f1"] for average in ("macro", "weighted")}
    final = {f"{metrics['split']}_{name}": float(value) for name, value in figures.items()}
    return {**final, "examples": float(metrics["examples"]), "run_seconds": float(read_json(folder / TIMINGS)["total_seconds"])}


def _log_numbers(client: MlflowClient, run_id: str, folder: Path, time_ms: int, *, code: Mapping[str, str]) -> None:
    from mlflow.entities import Metric, Param

    params = {**recipe_params(folder), **{f"code.{name}": version for name, version in code.items()}}
    named = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(named), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=named[start : start + _PARAMS_PER_BATCH])
    epochs = epoch_metrics(folder)
    figures = [Metric(name, value, time_ms, step) for step, row in enumerate(epochs, start=1) for name, value in row.items()]
    figures += [Metric(name, value, time_ms, len(epochs)) for name, value in final_metrics(folder).items()]
    for start in range(0, len(figures), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=figures[start : start + _METRICS_PER_BATCH])


def _log_dataset(client: MlflowClient, run_id: str, candidate: Candidate) -> None:
    from mlflow.entities import Dataset, DatasetInput

    dataset = Dataset(name=candidate.name, digest=candidate.data[:36], source_type="imagemill", source="{}")
    client.log_inputs(run_id, [DatasetInput(dataset)])


def _experiment(client: MlflowClient, name: str, artifact_root: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if artifact_root is None else f"{artifact_root}/{quote(name, safe='')}"
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _tags(candidate: Candidate) -> dict[str, str]:
    tags = {CONTENT_TAG: candidate.content, DATA_TAG: candidate.data, "mlflow.source.name": "imagemill"}
    if commit := candidate.code.get("commit"):
        tags["mlflow.source.git.commit"] = commit
    return tags


def _model_file(run_id: str) -> str:
    """What makes the folder one that `mlflow.keras.load_model` and `mlflow.pyfunc.load_model` take: model.keras in it."""
    import mlflow

    flavors = {
        "keras": {"data": "model", "keras_version": version("keras"), "save_exported_model": False},
        "python_function": {"loader_module": "mlflow.keras", "python_version": platform.python_version()},
    }
    return yaml.safe_dump({"flavors": flavors, "mlflow_version": mlflow.__version__, "run_id": run_id}, sort_keys=False)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 3]}..."
