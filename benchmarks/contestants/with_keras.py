"""`image_dataset_from_directory` as the tutorials use it: prefetched, cached in memory, random layers mapped in tf.data.

Batches are float32, as the function makes them. The cache freezes the order of the first epoch.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from benchmarks.contestants import Measure, Settings, measure_passes


def build(settings: Settings, *, cache: bool = False, layers: int = 0) -> Measure:
    """With the first `layers` of RandomFlip, RandomRotation, RandomZoom, RandomTranslation and RandomContrast."""
    size = (settings.size, settings.size)
    dataset = keras.utils.image_dataset_from_directory(
        settings.folder, image_size=size, batch_size=settings.batch, seed=1, verbose=False
    )
    if cache:
        dataset = dataset.cache()
    if layers:
        every = [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(0.1),
            keras.layers.RandomZoom(0.1),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.RandomContrast(0.2, value_range=(0, 255)),
        ]
        augment = keras.Sequential(every[:layers])
        dataset = dataset.map(
            lambda images, labels: (augment(images, training=True), labels), num_parallel_calls=tf.data.AUTOTUNE
        )
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return lambda seconds: measure_passes(lambda: dataset, seconds=seconds)
