"""The files for containers and recipes, as far as they can be checked without an engine: none is started here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.recipes import load_recipe

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deployments"
RECIPES = sorted((FOLDER / "recipes").glob("*.yaml"))
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
PINNED = re.compile(r"^[a-z0-9./-]+:\d+\.\d+[a-z0-9.-]*$")  # a full version, not a tag that moves


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined and comments left out."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]  # type: ignore[misc]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def test_the_image_is_built_on_a_pinned_one_by_a_user_who_is_not_root() -> None:
    for base in arguments_of("FROM"):
        assert PINNED.match(base.split()[0]), base
    assert arguments_of("USER")[-1] not in ("root", "0")
    assert arguments_of("ADD") == []
    assert all(argument.startswith("/") for argument in arguments_of("WORKDIR"))
    assert all(json.loads(command) for command in arguments_of("CMD"))
    assert not [command for command in arguments_of("RUN") if "sudo" in command or "apt-get" in command]
    assert all("--constraint" in command for command in arguments_of("RUN") if "pip install" in command)


def test_what_the_image_copies_is_there_and_is_what_the_build_needs() -> None:
    copied = [part for copy in arguments_of("COPY") if "--from" not in copy for part in copy.split()[:-1]]
    assert all((REPOSITORY / part).exists() for part in copied), copied
    packages = re.search(r"packages = (\[.*\])", (REPOSITORY / "pyproject.toml").read_text())
    assert packages is not None
    assert set(json.loads(packages[1])) <= set(copied)


def test_each_service_is_pinned_watched_and_comes_back() -> None:
    assert set(SERVICES) == {"postgres", "server", "worker", "mlflow"}
    volumes = yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"]
    for name, service in SERVICES.items():
        assert PINNED.match(service["image"]), name
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert all(SERVICES[other]["healthcheck"] for other in service.get("depends_on", {}))
        named = [volume.split(":")[0] for volume in service["volumes"] if not volume.startswith("$")]
        assert set(named) <= set(volumes)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "open to the network"


def test_no_secret_is_in_the_file_and_none_has_a_default() -> None:
    secret = re.compile(r"PASSWORD|AUTH_STRING|CONNECTION_URL")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert re.search(r"\$\{\w+:\?", value), f"{name}: {variable} must come from the environment"
    assert not re.search(r"\$\{\w*(PASSWORD|AUTH)\w*:?-", (FOLDER / "compose.yaml").read_text())


def test_the_server_is_closed_and_keeps_its_leases() -> None:
    environment = SERVICES["server"]["environment"]
    assert environment["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")
    assert environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    # Every name is one that Prefect knows.
    from prefect.settings.base import PrefectBaseSettings
    from prefect.settings.models.root import Settings

    known = _environment_names(Settings, PrefectBaseSettings)
    used = {name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith("PREFECT_")}
    assert used <= known, used - known


def _environment_names(settings: Any, base: type[Any]) -> set[str]:
    names: set[str] = set()
    prefix = settings.model_config["env_prefix"]
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, base):
            names |= _environment_names(field.annotation, base)
        names.add(f"{prefix}{name}".upper())
        names |= {choice.upper() for choice in getattr(field.validation_alias, "choices", []) if isinstance(choice, str)}
    return names


def test_the_kubernetes_job_is_what_a_cluster_takes() -> None:
    from prefect.utilities.templating import apply_values

    template = json.loads((FOLDER / "kubernetes-job.json").read_text())
    properties = template["variables"]["properties"]
    given = {name: field["default"] for name, field in properties.items() if "default" in field}
    values = {**given, "image": "registry/imagemill:0.1.0", "command": ["prefect", "flow-run", "execute"], "name": "train"}
    job = apply_values(template["job_configuration"], {**values, "gpus": 1})["job_manifest"]
    assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert "default" not in properties["image"], "an image of one's own, with its tag"
    without = apply_values(template["job_configuration"], values)["job_manifest"]["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in without["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_one_and_claims_only_what_was_measured(path: Path) -> None:
    load_recipe(path, [])
    heading = "\n".join(line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
    assert re.search("Command:   imagemill (re)?train", heading)
    assert str(path.relative_to(REPOSITORY)) in heading
    assert "Hardware:" in heading
    expected = heading.split("Expected:")[1].strip()
    if expected == "not measured":
        return
    named = re.search(r"(benchmarks/results/\w+\.json): ([\w, ]+)\)", expected)
    assert named is not None, "figures name the file that holds them"
    figures = json.loads((REPOSITORY / named[1]).read_text())["figures"]
    claim = expected.split("(")[0]
    for key in named[2].split(", "):
        shown = f"{figures[key]:.1%}" if "accuracy" in key else f"{figures[key]:.0f} s"
        assert shown in claim, (key, figures[key])


def test_there_are_recipes_for_each_purpose() -> None:
    assert {path.stem for path in RECIPES} == {"laptop-photos", "small-images", "gpu", "retrain"}
