"""imagemill's from-scratch CNN on CIFAR-10 against the usual recipe: accuracy on the 10,000 test images, seconds to 85%.

Each runs as a process of its own, one after the other, on the same folders: the last tenth of each training class is the
validation split of both. Ours has the blocks of deployments/recipes/small-images.yaml; the usual recipe has those of the usual
CNN, or with `--same-blocks` ours. "To 85%" is from process start to the end of the first epoch with so much on validation; ours
includes the scan, the check and the decoding of all files. Where the usual recipe never gets there, all its time stands in, so
that the ratio is then a lower bound.

    python -m benchmarks.cifar10 ../shared/data/cifar10.tar.gz --json benchmarks/results/cifar10.json
    python -m benchmarks.cifar10 ../shared/data/cifar10.tar.gz --per-class 40 --epochs 2 --target .2     # a try, two minutes
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.results import write_results
from benchmarks.source import unpack_classes

COMMAND = Path(sys.executable).with_name("imagemill")
RECIPE = Path(__file__).parents[1] / "deployments" / "recipes" / "small-images.yaml"


def lay_out(archive: Path, folder: Path, *, per_class: int | None = None) -> Path:
    """Unpacks train/CLASS and test/CLASS, and moves the last tenth of each training class into validation/CLASS.

    Args:
        archive: the tar.
        folder: where to unpack it.
        per_class: how many images of each class and split to keep; all where None.
    """
    root = unpack_classes(archive, folder)
    for label in sorted(root.glob("*/*")):
        images = sorted(label.iterdir())
        for path in images[per_class:] if per_class else []:
            path.unlink()
        if label.parent.name == "train":
            validation = root / "validation" / label.name
            validation.mkdir(parents=True)
            kept = images[:per_class]
            for path in kept[-max(1, len(kept) // 10) :]:
                path.rename(validation / path.name)
    return root


def run_ours(source: Path, folder: Path, *, target: float, settings: Sequence[str]) -> dict[str, float]:
    """One `imagemill train` in a new home."""
    out = folder / "run"
    command = [COMMAND, "train", source, "--config", RECIPE, "--home", folder / "home", "--out", out]
    command += [part for setting in settings for part in ("--set", setting)]
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True)
    seconds = time.monotonic() - started
    metrics = json.loads((out / "metrics.json").read_text())
    stages = json.loads((out / "timings.json").read_text())["stages"]
    figures = {"test_accuracy": metrics["accuracy"], "test_images": metrics["examples"], "seconds_ours": seconds}
    figures |= {f"seconds_{name}": stage["seconds"] for name, stage in stages.items()}
    epochs = pq.read_table(out / "history.parquet").to_pylist()
    figures |= {"epochs_ours": len(epochs), "validation_accuracy_ours": max(row["val_accuracy"] for row in epochs)}
    return figures | when_reached(epochs, stages, seconds=seconds, target=target)


def when_reached(
    epochs: Sequence[Mapping[str, Any]], stages: Mapping[str, Mapping[str, Any]], *, seconds: float, target: float
) -> dict[str, float]:
    """After which epoch, and how many seconds after the start of the process, validation reached the target; or nothing.

    What no stage accounts for (imports, Prefect's start) is counted as if it had all come before.
    """
    hits = [number for number, row in enumerate(epochs, start=1) if row["val_accuracy"] >= target]
    if not hits:
        return {}
    after = sum(stage["seconds"] for name, stage in stages.items() if name in {"evaluate", "export"})
    left_over = sum(row["seconds"] for row in epochs[hits[0] :])
    return {"epochs_to_target": hits[0], "seconds_to_target": seconds - after - left_over}


def run_usual(source: Path, folder: Path, *, target: float, epochs: int, same_blocks: bool) -> dict[str, float]:
    """One run of the usual recipe."""
    result = folder / "usual.json"
    command = [sys.executable, "-m", "benchmarks.usual_small_cnn", source, "--json", result]
    command += ["--target", target, "--epochs", epochs, *(["--blocks-of", RECIPE] if same_blocks else [])]
    subprocess.run([str(part) for part in command], check=True)
    figures: dict[str, float] = json.loads(result.read_text())["figures"]
    return figures


def claims(figures: Mapping[str, float], *, target: float) -> dict[str, float]:
    """The figures that are claimed, under the names that are claimed for them."""
    found: dict[str, float] = {}
    if "test_accuracy" in figures:
        found["cifar10_test_accuracy"] = figures["test_accuracy"]
    if "seconds_to_target" in figures and "seconds_usual" in figures:
        usual = figures.get("seconds_to_target_usual", figures["seconds_usual"])
        found[f"seconds_to_{target * 100:g}_ratio"] = usual / figures["seconds_to_target"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="a tar of train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--per-class", type=int, help="use only so many images of each class and split")
    parser.add_argument("--epochs", type=int, help="of both, in place of their own")
    parser.add_argument("--usual-epochs", type=int, default=100, help="of the usual recipe, at most; it may stop itself before")
    parser.add_argument("--only", choices=["ours", "usual"])
    parser.add_argument("--same-blocks", action="store_true", help="train our blocks by the usual recipe too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe value for ours")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    target, epochs = arguments.target, arguments.epochs
    figures: dict[str, float] = {}
    settings = [*([f"fine_tune.epochs={epochs}"] if epochs else []), *arguments.set]
    with tempfile.TemporaryDirectory() as folder:
        source = lay_out(arguments.archive, Path(folder, "cifar10"), per_class=arguments.per_class)
        if arguments.only != "usual":
            figures |= run_ours(source, Path(folder), target=target, settings=settings)
        if arguments.only != "ours":
            most = epochs or arguments.usual_epochs
            figures |= run_usual(source, Path(folder), target=target, epochs=most, same_blocks=arguments.same_blocks)
    write_results({**figures, **claims(figures, target=target)}, arguments.json)


if __name__ == "__main__":
    main()
