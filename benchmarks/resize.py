"""Which way of making photos square suits a pretrained backbone: features of each, and a linear classifier on them.

EfficientNet-Lite0's pooled features at 160 px, logistic regression, five folds four times over.

    python -m benchmarks.resize CLASS_FOLDERS --json benchmarks/results/resize.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write_results

SIZE = 160


def extract_features(paths: list[Path], read: Any) -> Any:
    """Pooled features float32 [n, 1280] of files that `read` turns into pixels."""
    import keras
    import tensorflow as tf

    from pipelines.models.lite0 import build_lite0

    network = build_lite0(image_size=SIZE, weights="imagenet")
    pixels = keras.Input((SIZE, SIZE, 3))
    features = network(keras.layers.Rescaling(1 / 128, -127 / 128)(pixels))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(features))
    contents = tf.data.Dataset.from_tensor_slices([path.read_bytes() for path in paths])
    images = contents.map(lambda file: tf.cast(read(file), tf.float32), num_parallel_calls=2)
    return np.concatenate([model.predict_on_batch(batch) for batch in images.batch(32)])


def score(features: Any, labels: Any) -> tuple[float, float]:
    """Accuracy and cross-entropy of logistic regression, means over the folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_validate
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=300))
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0)
    scores = cross_validate(classifier, features, labels, cv=folds, scoring=["accuracy", "neg_log_loss"])
    return float(scores["test_accuracy"].mean()), float(-scores["test_neg_log_loss"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import tensorflow as tf

    from pipelines.data.decode import decode_and_resize, decode_upright

    def keras_stretch(file: Any) -> Any:
        return tf.ensure_shape(tf.image.resize(decode_upright(file), (SIZE, SIZE)), (SIZE, SIZE, 3))

    def crop_bicubic(file: Any) -> Any:
        image = decode_upright(file)
        side = tf.reduce_min(tf.shape(image)[:2])
        square = tf.image.resize_with_crop_or_pad(image, side, side)
        return tf.ensure_shape(tf.image.resize(square, (SIZE, SIZE), "bicubic", antialias=True), (SIZE, SIZE, 3))

    ways = {
        "keras_stretch": keras_stretch,
        "stretch": lambda file: decode_and_resize(file, image_size=SIZE, resize="stretch"),
        "crop": lambda file: decode_and_resize(file, image_size=SIZE, resize="crop"),
        "crop_bicubic": crop_bicubic,
    }
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    labels = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    figures = {}
    for name, read in ways.items():
        figures[f"accuracy_{name}"], figures[f"loss_{name}"] = score(extract_features(paths, read), labels)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
