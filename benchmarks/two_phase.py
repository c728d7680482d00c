"""imagemill against the usual recipe on the same photos: accuracy on validation, and seconds from start to model.

Each runs as a process of its own, one after the other, on the same split: the sticky hash split of imagemill, laid out
as folders, without every hundredth training image. These are added then, and imagemill retrains from its champion's weights.
Besides, the bound: one forward pass of all images through the backbone. The very first run of imagemill by a user makes the
tables of Prefect's database, which takes seconds more: run one before, as on any machine that is used.

With `--as-avx2` a processor with AVX-512 works as one without: TensorFlow's matrix products, oneDNN, NumPy and OpenCV are
kept to AVX2, and the usual recipe goes without oneDNN, which TensorFlow leaves off on such processors by itself.

    python -m benchmarks.two_phase ../shared/data/cats-dogs.tar --json benchmarks/results/two_phase.json
    python -m benchmarks.two_phase ../shared/data/cifar10.tar.gz --size 96 --only ours --set model.backbone=EfficientNetLite0
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import write_results
from benchmarks.source import ingest_images, training_classes, unpack_classes

COMMAND = Path(sys.executable).with_name("imagemill")
# What the libraries ask for. oneDNN's products are TensorFlow's own too, with oneDNN's layers or without.
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}


def lay_out(archive: Path, folder: Path, *, seed: int) -> Path:
    """Unpacks class folders and links their images into train/ and validation/ by the split that imagemill draws.

    Every hundredth training image goes to a folder `later` beside the split. Of a set with a folder `train` that is taken.
    """
    from pipelines.config import Recipe, SplitConfig
    from pipelines.store.artifacts import artifact_path
    from pipelines.store.index import read_index

    root = training_classes(unpack_classes(archive, folder / "unpacked"))
    recipe = Recipe(seed=seed, split=SplitConfig(train=0.8, validation=0.2, test=0, seed=seed))
    home = folder / "home of the split"
    index = ingest_images(home, root, recipe)
    rows = [row for row in read_index(artifact_path(home, index.artifact) / "index.parquet") if row["status"] == "ok"]
    for split in ("train", "validation"):
        for number, row in enumerate(row for row in rows if row["split"] == split):
            late = split == "train" and number % 100 == 50
            link = folder / ("later" if late else "split") / split / row["path"]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(root / row["path"])
    return folder / "split"


def run_ours(split: Path, home: Path, *, size: int, seed: int, settings: list[str]) -> dict[str, float]:
    """One `imagemill train` in a new home, the same again, fully cached, and `imagemill retrain` with 1% of new images."""
    out, photos = home / "run", home / "photos"
    shutil.copytree(split, photos, copy_function=os.link)
    common = [photos, "--home", home / "home", "--set", f"image_size={size}", "--set", f"seed={seed}"]
    common += [part for setting in settings for part in ("--set", setting)]
    command = [COMMAND, "train", *common, "--out", out]
    seconds = time_command(command)
    metrics = json.loads((out / "metrics.json").read_text())
    timings = json.loads((out / "timings.json").read_text())
    cached_seconds = time_command(command)
    cached = json.loads((out / "timings.json").read_text())
    assert all(stage["cache"] == "hit" for name, stage in cached["stages"].items() if name != "scan"), cached
    shutil.copytree(split.parent / "later", photos, copy_function=os.link, dirs_exist_ok=True)
    warm = ["--set", "retrain.warm_start=true", "--set", "retrain.replay=10"]
    retrain_seconds = time_command([COMMAND, "retrain", *common, *warm])
    (challenger,) = (home / "home" / "challengers").glob("*")
    retrained = json.loads((challenger / "timings.json").read_text())
    return {
        "retrain_ratio": seconds / retrain_seconds,
        "seconds_retrain": retrain_seconds,
        "accuracy_ours": metrics["accuracy"],
        "accuracy_retrained": json.loads((challenger / "metrics.json").read_text())["accuracy"],
        "images": timings["images"],
        "seconds_ours": seconds,
        **{f"seconds_{name}": stage["seconds"] for name, stage in timings["stages"].items()},
        **{f"seconds_retrain_{name}": stage["seconds"] for name, stage in retrained["stages"].items()},
        "seconds_cached": cached_seconds,
        "seconds_cached_stages": sum(stage["seconds"] for stage in cached["stages"].values()),
    }


def time_command(command: list[Any]) -> float:
    """Seconds that a command takes."""
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True)
    return time.monotonic() - started


def measure_bound(*, images: int, size: int) -> float:
    """Seconds of one forward pass of so many images through the default backbone, in this process; building it not counted."""
    import flows  # noqa: F401 (it says which of TensorFlow's kernels are used)
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()
    import numpy as np
    import tensorflow as tf

    from pipelines.data.batches import EVALUATION_BATCH_SIZE
    from pipelines.models.lite0 import build_lite0

    backbone = build_lite0(image_size=size, weights="imagenet")
    forward = tf.function(lambda pixels: backbone(pixels, training=False), jit_compile=False)
    pixels = tf.constant(np.random.default_rng(0).normal(size=(EVALUATION_BATCH_SIZE, size, size, 3)), tf.float32)
    forward(pixels)
    started = time.monotonic()
    for _ in range(0, images, EVALUATION_BATCH_SIZE):
        forward(pixels)
    return time.monotonic() - started


def ask_bound(*, images: int, size: int) -> float:
    """`measure_bound` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.two_phase", "-", "--size", str(size), "--bound", str(images)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def run_usual(split: Path, folder: Path, *, size: int, seed: int, as_avx2: bool) -> dict[str, float]:
    """One run of the usual recipe."""
    result = folder / "usual.json"
    command = [sys.executable, "-m", "benchmarks.usual_recipe", split / "train", split / "validation"]
    command += ["--size", str(size), "--seed", str(seed), "--json", result]
    own = {"TF_ENABLE_ONEDNN_OPTS": "0"} if as_avx2 else {}
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **own})
    figures: dict[str, float] = json.loads(result.read_text())["figures"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="a tar of class folders")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="of both, interleaved; medians are given")
    parser.add_argument("--only", choices=["ours", "usual"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe value for ours")
    parser.add_argument("--as-avx2", action="store_true", help="as on a processor without AVX-512")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bound", type=int, metavar="IMAGES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bound:
        print(measure_bound(images=arguments.bound, size=arguments.size))
        return
    if arguments.as_avx2:
        os.environ |= AVX2
    runs: list[dict[str, float]] = []
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            split = lay_out(arguments.archive, Path(folder), seed=arguments.seed)
            figures: dict[str, float] = {}
            options = {"size": arguments.size, "seed": arguments.seed + repeat}
            if arguments.only != "usual":
                figures |= run_ours(split, Path(folder), settings=arguments.set, **options)
                bound = ask_bound(images=round(figures["images"]), size=arguments.size)
                phase_1 = figures["seconds_embed"] + figures["seconds_head"]
                figures |= {"seconds_bound": bound, "total_over_bound": figures["seconds_ours"] / bound}
                figures |= {"phase_1_over_bound": phase_1 / bound}
            if arguments.only != "ours":
                figures |= run_usual(split, Path(folder), **options, as_avx2=arguments.as_avx2)
            if arguments.only is None:
                figures["end_to_end_ratio"] = figures["seconds_usual"] / figures["seconds_ours"]
            runs.append(figures)
    write_results({name: statistics.median(run[name] for run in runs) for name in runs[0]}, arguments.json)


if __name__ == "__main__":
    main()
