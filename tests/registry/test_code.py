"""Which code made a model."""

from __future__ import annotations

from importlib.metadata import version

from pipelines.registry.code import code_versions


def test_the_stages_and_the_libraries_have_versions() -> None:
    versions = code_versions({"ingest": 3, "export": 2})
    assert versions["stages"] == "ingest=3 export=2"
    assert versions["keras"] == version("keras")
    assert len(versions.get("commit", "c" * 40)) == 40
