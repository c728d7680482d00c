"""The code that each stage runs, as a digest: `python -m tests.stage_versions` writes it down after a change was judged.

A stage's cache key holds a version number, not its code: rewording a message must not retrain every model. This digest
(of the syntax trees of all modules that a stage imports, comments and docstrings left out) makes sure that somebody
decides. The same holds for the examination of files, whose outcomes are kept by content, and for augmentation and networks,
which made what the activation store holds.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from pathlib import Path

import grimp

from pipelines.sources.examine import EXAMINE_VERSION
from pipelines.training.embed import AUGMENT_VERSION, PREFIX_VERSION
from tasks.policies import STAGE_VERSIONS
from tasks.worker import STAGES

LOCK = Path(__file__).with_name("stage_versions.json")
# Where code runs, how it is told and what it says of itself on the way changes no result.
WITHOUT_INFLUENCE = {
    "pipelines.progress",
    "pipelines.errors",
    "pipelines.training.checkpoint",
}
_IN_THE_FLOW = {"ingest": "pipelines.sources.ingest:ingest"}  # stages that need no child process


def current() -> dict[str, dict[str, object]]:
    """Version and code digest of each stage, and of what is kept by content, as they are now."""
    graph = grimp.build_graph("tasks", "pipelines")
    versions = {stage: (version, stage_modules(graph, stage)) for stage, version in STAGE_VERSIONS.items()}
    versions["examine"] = EXAMINE_VERSION, examine_modules(graph)
    versions["augment"] = AUGMENT_VERSION, {"pipelines.augment", *graph.find_descendants("pipelines.augment")}
    versions["prefix"] = PREFIX_VERSION, {"pipelines.models", *graph.find_descendants("pipelines.models")}
    return {name: {"version": version, "code": _code_digest(modules)} for name, (version, modules) in versions.items()}


def stage_modules(graph: grimp.ImportGraph, stage: str) -> set[str]:
    """A stage's task, and what its function imports, directly or not, at the top of a file or inside a function."""
    module = {**STAGES, **_IN_THE_FLOW}[stage].partition(":")[0]
    modules = {f"tasks.{stage}", module, *graph.find_upstream_modules(module)} - WITHOUT_INFLUENCE
    # Run as a script, so imported by nobody.
    return modules | {"pipelines.export.parity_probe"} if "pipelines.export.parity" in modules else modules


def examine_modules(graph: grimp.ImportGraph) -> set[str]:
    """The modules that decide what is found out about a file."""
    module = "pipelines.sources.examine"
    return {module, *graph.find_upstream_modules(module)} - WITHOUT_INFLUENCE


def _code_digest(modules: set[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        digest.update(f"{module}\n{_syntax(Path(spec.origin))}\n".encode())
    return digest.hexdigest()[:16]


def _syntax(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


if __name__ == "__main__":
    LOCK.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
