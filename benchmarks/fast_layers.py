"""A training step of the small CNN with Keras's own layers and with `pipelines.models.fast_layers`: us per image.

Both learn the same batch of noise in one process, in turns; the median of nine turns of ten steps each is given.

    python -m benchmarks.fast_layers --json benchmarks/results/fast_layers.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import write_results

# Widths and depths of the blocks: the usual CNN's first.
BLOCKS = {
    "32-64-128, 2-2-1": ([32, 64, 128], [2, 2, 1]),
    "32-64-128-256, 1-1-1-2": ([32, 64, 128, 256], [1, 1, 1, 2]),
    "32-64-128-256, 1-2-1-1": ([32, 64, 128, 256], [1, 2, 1, 1]),
    "32-64-128-256, 1-1-2-1": ([32, 64, 128, 256], [1, 1, 2, 1]),
    "32-64-128-256, 1-2-1-2": ([32, 64, 128, 256], [1, 2, 1, 2]),
    "48-96-192, 1-2-1": ([48, 96, 192], [1, 2, 1]),
}
BATCH, STEPS, TURNS = 128, 10, 9


def build_step(network: Any) -> Callable[[], Any]:
    """A function that trains a network on one batch of noise."""
    import keras
    import numpy as np
    import tensorflow as tf

    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (BATCH, 32, 32, 3)), tf.float32)
    labels = tf.range(BATCH) % 10
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = network.trainable_variables
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    optimizer.build(weights)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, network(images, training=True))
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        return loss

    made: Callable[[], Any] = step
    return made


def measure(widths: list[int], depths: list[int]) -> tuple[float, float]:
    """Microseconds per image with Keras's layers and with ours."""
    from pipelines.config import Recipe
    from pipelines.models.assemble import build_classifier, set_trainable_top
    from pipelines.models.fast_layers import with_fast_layers

    blocks = {"widths": widths, "depths": depths, "dropout": 0.0}
    model = {"backbone": "SmallCNN", "hidden_units": 0, "dropout": 0.0, "blocks": blocks}
    classifier = build_classifier(Recipe.model_validate({"model": model}).model, image_size=32, num_classes=10, seed=1)
    set_trainable_top(classifier, layers="all")
    steps = (build_step(classifier), build_step(with_fast_layers(classifier)))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS + 1):
        for step, taken in zip(steps, seconds, strict=True):
            started = time.monotonic()
            for _ in range(STEPS):
                step()
            if turn:  # the first one builds the graph
                taken.append(time.monotonic() - started)
    keras_s, ours = (statistics.median(taken) / STEPS / BATCH * 1e6 for taken in seconds)
    return keras_s, ours


def main() -> None:
    import flows  # noqa: F401 (it says which of TensorFlow's kernels are used)
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for name, (widths, depths) in BLOCKS.items():
        keras_s, ours = measure(widths, depths)
        figures |= {f"{name} keras_us": keras_s, f"{name} fast_us": ours, f"{name} saved": 1 - ours / keras_s}
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
