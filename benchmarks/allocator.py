"""What keeping freed memory is worth: training steps of the default backbone with and without it, in turn.

python -m benchmarks.allocator --json benchmarks/results/allocator.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import write_results

IMAGES, BATCH, SIZE = 256, 32, 160


def measure(*, keep: bool) -> dict[str, float]:
    """Images per second of training the head and of training the top 20 layers, and the page faults of all, in this process."""
    from pipelines.allocator import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("this C library can't be told to keep freed memory")
    import keras
    import numpy as np

    from pipelines.config import ModelConfig
    from pipelines.models.assemble import build_classifier, set_trainable_head, set_trainable_top

    model = build_classifier(ModelConfig(), image_size=SIZE, num_classes=2, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.float32)
    labels = np.arange(IMAGES) % 2
    figures: dict[str, float] = {}
    for phase in ("head", "top"):
        set_trainable_head(model) if phase == "head" else set_trainable_top(model, layers=20)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, jit_compile=False)
        model.fit(images, labels, batch_size=BATCH, verbose=0)
        rates = []
        for _ in range(3):
            started = time.monotonic()
            model.fit(images, labels, batch_size=BATCH, verbose=0)
            rates.append(IMAGES / (time.monotonic() - started))
        figures[phase] = statistics.median(rates)
    figures["faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=["keep", "leave"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(keep=arguments.measure == "keep")))
        return
    runs: dict[str, list[dict[str, float]]] = {"keep": [], "leave": []}
    for _ in range(arguments.repeats):
        for kind, results in runs.items():
            command = [sys.executable, "-m", "benchmarks.allocator", "--measure", kind]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        kind: {name: statistics.median(run[name] for run in results) for name in results[0]} for kind, results in runs.items()
    }
    figures = {f"{name}_{kind}": value for kind, median in medians.items() for name, value in median.items()}
    for phase in ("head", "top"):
        figures[f"{phase}_ratio"] = medians["keep"][phase] / medians["leave"][phase]
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
