"""Heavy stages in the process of the tests, which then share one TensorFlow, but with what would pass to a child and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pipelines.progress import Report
from tasks.child import read_arguments
from tasks.worker import STAGES, InProcess


class WireWorker(InProcess):
    """As the child, but for the process."""

    def run(self, stage: str, arguments: Mapping[str, Any], *, report: Report) -> Any:
        """Takes the arguments through JSON, which must not change them."""
        carried = json.loads(json.dumps(to_jsonable_python(dict(arguments), round_trip=True)))
        read = read_arguments(resolve_name(STAGES[stage]), carried)
        assert read == arguments
        made = super().run(stage, read, report=report)
        brought = json.loads(json.dumps(to_jsonable_python(made, round_trip=True)))
        assert (type(made).model_validate(brought) if isinstance(made, BaseModel) else brought) == made
        return made
