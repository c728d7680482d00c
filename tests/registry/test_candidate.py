"""What makes two runs the same."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import Recipe
from pipelines.contracts import Artifact, Candidate, ExportedModel, ImageIndex
from pipelines.registry.candidate import describe_candidate, model_name


def describe(recipe: dict[str, Any] | None = None, *, index: str = "i", model: str = "m") -> Candidate:
    return describe_candidate(
        Recipe.model_validate(recipe or {}),
        ImageIndex(artifact=Artifact(path="x", digest=index), classes=("a",), examples={"train": 1}, bad_files=0),
        ExportedModel(artifact=Artifact(path="x", digest=model), max_difference=0, compared=1),
        dataset="pets: 1/2",
        code={},
    )


def test_the_model_the_images_and_the_recipe_make_the_content() -> None:
    others = [describe({"seed": 2}), describe(index="j"), describe(model="n")]
    assert len({candidate.content for candidate in [describe(), *others]}) == 4
    assert describe() == describe({"image_size": 160})  # a default that was written out


def test_where_it_is_registered_is_no_part_of_it() -> None:
    named = describe({"registry": {"name": "animals", "uri": "http://host:5000"}})
    assert named.content == describe().content
    assert (named.name, describe().name) == ("animals", "pets- 1-2")


@pytest.mark.parametrize("name", [".", "..", " ", "a/b:c", "it's", "ä b"])
def test_every_data_set_has_a_name_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(model_name(name))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"uri": "mlruns"}, r"`registry.uri`: must be an address such as http://HOST:5000 .*; received 'mlruns'"),
        ({"uri": "http://host:fifty"}, r"`registry.uri`: must be an address"),
        ({"name": "a/b"}, r"`registry.name`"),
        ({"off": True}, r"unknown key `registry.off`"),
    ],
)
def test_a_wrong_section_is_refused(section: dict[str, Any], message: str) -> None:
    from pipelines.errors import InputError
    from pipelines.recipes import parse_recipe

    with pytest.raises(InputError, match=message):
        parse_recipe({"registry": section})
