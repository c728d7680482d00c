"""The code that each stage runs, as a digest: `python -m tests.stage_versions` writes it down after a change was judged.

A stage's cache key holds a version number, not its code: rewording a message must not retrain every model. This digest
(of the syntax trees of all modules that a stage imports, comments and docstrings left out) makes sure that somebody
decides.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from pathlib import Path

import grimp

from tasks.policies import STAGE_VERSIONS

LOCK = Path(__file__).with_name("stage_versions.json")
# Where code runs, how it is told and what it says of itself on the way changes no result.
WITHOUT_INFLUENCE = {
    "pipelines.progress",
    "pipelines.errors",
    "pipelines.training.checkpoint",
    "tasks.progress",
    "tasks.policies",
}


def current() -> dict[str, dict[str, object]]:
    """Version and code digest of each stage as they are now."""
    graph = grimp.build_graph("tasks", "pipelines")
    return {stage: {"version": version, "code": _code_digest(graph, stage)} for stage, version in STAGE_VERSIONS.items()}


def stage_modules(graph: grimp.ImportGraph, stage: str) -> set[str]:
    """The modules that a stage's task imports, directly or not, at the top of a file or inside a function."""
    modules = graph.find_upstream_modules(f"tasks.{stage}") - WITHOUT_INFLUENCE
    # Run as a script, so imported by nobody.
    return modules | {"pipelines.export.parity_probe"} if "pipelines.export.parity" in modules else modules


def _code_digest(graph: grimp.ImportGraph, stage: str) -> str:
    digest = hashlib.sha256()
    for module in sorted(stage_modules(graph, stage)):
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
