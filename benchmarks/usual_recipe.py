"""The usual Keras transfer-learning recipe, as the tutorials have it: what imagemill is measured against.

`image_dataset_from_directory`; flip, rotation .1 and zoom .1 as layers in the model; a frozen EfficientNet-Lite0 called
with `training=False`; global average pooling, dropout .3, Dense; 10 epochs at Adam 1e-3, then the last 20 layers at Adam
1e-5 for 10 epochs.

    python -m benchmarks.usual_recipe TRAIN VALIDATION --json FILE
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

STARTED = time.monotonic()  # before TensorFlow is imported: a user waits for that too

from benchmarks.results import write_results  # noqa: E402


def train_usual(train_folder: Path, validation_folder: Path, *, size: int, seed: int) -> dict[str, float]:
    """Runs the recipe and returns its figures: accuracies after each phase, and seconds."""
    import keras

    from pipelines.models.lite0 import build_lite0

    keras.utils.set_random_seed(seed)
    options = {"image_size": (size, size), "batch_size": 32, "seed": seed}
    train = keras.utils.image_dataset_from_directory(train_folder, **options)
    validation = keras.utils.image_dataset_from_directory(validation_folder, shuffle=False, **options)
    classes = len(train.class_names)
    train, validation = train.prefetch(2), validation.prefetch(2)

    base = build_lite0(image_size=size, weights="imagenet")
    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.RandomRotation(0.1)(x)
    x = keras.layers.RandomZoom(0.1)(x)
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.3)(x)
    model = keras.Model(inputs, keras.layers.Dense(classes)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    head = model.fit(train, validation_data=validation, epochs=10, verbose=2)

    base.trainable = True
    for layer in base.layers[:-20]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=loss, metrics=["accuracy"])
    tuned = model.fit(train, validation_data=validation, epochs=10, verbose=2)
    return {
        "accuracy_usual_head": head.history["val_accuracy"][-1],
        "accuracy_usual": tuned.history["val_accuracy"][-1],
        "accuracy_usual_best_epoch": max(head.history["val_accuracy"] + tuned.history["val_accuracy"]),
        "seconds_usual": time.monotonic() - STARTED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = train_usual(arguments.train, arguments.validation, size=arguments.size, seed=arguments.seed)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
