"""The layers of a backbone, asked of a process of its own: building one takes TensorFlow, and with it a share of the GPU.

Imports neither TensorFlow nor Prefect.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess

from pipelines.errors import RunError
from tasks.spawn import python_command


@functools.cache
def layer_names(backbone: str) -> tuple[str, ...]:
    """The names of a backbone's layers, in their order; some seconds the first time in a process.

    Args:
        backbone: a key of the table of backbones.

    Raises:
        RunError: it could not be built, which is no fault of the recipe.
    """
    command = python_command("pipelines.models.top_layers", "print_layer_names", backbone)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"the layers of {backbone} could not be found out: exit status {done.returncode} ({last})")
    return tuple(json.loads(done.stdout.splitlines()[-1]))
