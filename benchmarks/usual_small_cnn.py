"""The usual way to train a small CNN on CIFAR-10 in Keras: what `benchmarks/cifar10.py` measures imagemill against.

All images in memory as arrays; imagemill's small CNN with its usual dropout and head; Adam 1e-3, batches of 128, `fit` with
ReduceLROnPlateau (half the rate after 3 epochs) and EarlyStopping (10 epochs, best weights restored), no augmentation.

    python -m benchmarks.usual_small_cnn FOLDER --json FILE     # FOLDER holds train/, validation/ and test/

`--blocks-of RECIPE` takes the widths and depths of that recipe's blocks; otherwise they are those of the usual CNN.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # before TensorFlow is imported: a user waits for that too

import yaml  # noqa: E402

from benchmarks.results import write_results  # noqa: E402


def read_arrays(folder: Path) -> tuple[Any, Any]:
    """All images of a folder of class folders, uint8 [n, 32, 32, 3], and their labels."""
    import keras
    import numpy as np

    batches = keras.utils.image_dataset_from_directory(folder, image_size=(32, 32), batch_size=1000, shuffle=False)
    pixels, labels = zip(*((images.numpy().astype(np.uint8), labels.numpy()) for images, labels in batches), strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def train_usual(folder: Path, blocks: Mapping[str, Any], *, epochs: int, target: float, seed: int) -> dict[str, float]:
    """Runs the recipe and returns its figures: accuracy on test, seconds, and when validation first reached the target."""
    import keras

    from pipelines.config import Recipe
    from pipelines.models.assemble import build_classifier, set_trainable_top

    train, validation, test = (read_arrays(folder / split) for split in ("train", "validation", "test"))
    recipe = Recipe.model_validate({"model": {"backbone": "SmallCNN", "blocks": dict(blocks)}})
    model = build_classifier(recipe.model, image_size=32, num_classes=int(train[1].max()) + 1, seed=seed)
    set_trainable_top(model, layers="all")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    reached: list[tuple[int, float]] = []

    def look(epoch: int, logs: dict[str, float]) -> None:
        if logs["val_accuracy"] >= target:
            reached.append((epoch + 1, time.monotonic() - STARTED))

    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=look),
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3),
        keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
    ]
    fitted = model.fit(*train, batch_size=128, epochs=epochs, validation_data=validation, callbacks=callbacks, verbose=2)
    seconds = time.monotonic() - STARTED
    figures = {
        "test_accuracy_usual": model.evaluate(*test, batch_size=500, verbose=0)[1],
        "validation_accuracy_usual": max(fitted.history["val_accuracy"]),
        "epochs_usual": len(fitted.epoch),
        "seconds_usual": seconds,
    }
    if reached:
        figures |= {"epochs_to_target_usual": reached[0][0], "seconds_to_target_usual": reached[0][1]}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks-of", type=Path, metavar="RECIPE")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    blocks = yaml.safe_load(arguments.blocks_of.read_text())["model"]["blocks"] if arguments.blocks_of else {}
    shape = {name: blocks[name] for name in ("widths", "depths") if name in blocks}
    figures = train_usual(arguments.folder, shape, epochs=arguments.epochs, target=arguments.target, seed=arguments.seed)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
