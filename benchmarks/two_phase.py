"""imagemill against the usual recipe on the same photos: accuracy on validation, and seconds from start to model.

Each runs as a process of its own, one after the other, on the same split: the sticky hash split of imagemill, laid out
as folders.

    python -m benchmarks.two_phase ../shared/data/cats-dogs.tar --json benchmarks/results/two_phase.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import write_results
from benchmarks.source import unpack_classes

COMMAND = Path(sys.executable).with_name("imagemill")


def lay_out(archive: Path, folder: Path, *, seed: int) -> Path:
    """Unpacks class folders and links their images into train/ and validation/ by the split that imagemill draws."""
    from pipelines.config import Recipe, SplitConfig
    from pipelines.slices import ingest_slice
    from pipelines.sources.ingest import ingest
    from pipelines.sources.scan import scan_source
    from pipelines.store.artifacts import artifact_path
    from pipelines.store.index import read_index

    root = unpack_classes(archive, folder / "unpacked")
    recipe = Recipe(seed=seed, split=SplitConfig(train=0.8, validation=0.2, test=0, seed=seed))
    home = folder / "home of the split"
    index = ingest(home, root, scan_source(home, root), config=ingest_slice(recipe, dataset="benchmark"))
    for row in read_index(artifact_path(home, index.artifact) / "index.parquet"):
        if row["status"] == "ok":
            link = folder / "split" / row["split"] / row["path"]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(root / row["path"])
    return folder / "split"


def run_ours(split: Path, home: Path, *, size: int, seed: int, settings: list[str]) -> dict[str, float]:
    """One `imagemill train` in a new home, then the same again, fully cached."""
    out = home / "run"
    command = [COMMAND, "train", split, "--home", home / "home", "--out", out, "--set", f"image_size={size}"]
    command += ["--set", f"seed={seed}", *(part for setting in settings for part in ("--set", setting))]
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True)
    seconds = time.monotonic() - started
    metrics = json.loads((out / "metrics.json").read_text())
    timings = json.loads((out / "timings.json").read_text())
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True)
    cached_seconds = time.monotonic() - started
    cached = json.loads((out / "timings.json").read_text())
    assert all(stage["cache"] == "hit" for name, stage in cached["stages"].items() if name != "scan"), cached
    return {
        "accuracy_ours": metrics["accuracy"],
        "seconds_ours": seconds,
        **{f"seconds_{name}": stage["seconds"] for name, stage in timings["stages"].items()},
        "seconds_cached": cached_seconds,
        "seconds_cached_stages": sum(stage["seconds"] for stage in cached["stages"].values()),
    }


def run_usual(split: Path, folder: Path, *, size: int, seed: int) -> dict[str, float]:
    """One run of the usual recipe."""
    result = folder / "usual.json"
    command = [sys.executable, "-m", "benchmarks.usual_recipe", split / "train", split / "validation"]
    command += ["--size", str(size), "--seed", str(seed), "--json", result]
    subprocess.run([str(part) for part in command], check=True)
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
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, float]] = []
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            split = lay_out(arguments.archive, Path(folder), seed=arguments.seed)
            figures: dict[str, float] = {}
            options = {"size": arguments.size, "seed": arguments.seed + repeat}
            if arguments.only != "usual":
                figures |= run_ours(split, Path(folder), settings=arguments.set, **options)
            if arguments.only != "ours":
                figures |= run_usual(split, Path(folder), **options)
            if arguments.only is None:
                figures["end_to_end_ratio"] = figures["seconds_usual"] / figures["seconds_ours"]
            runs.append(figures)
    write_results({name: statistics.median(run[name] for run in runs) for name in runs[0]}, arguments.json)


if __name__ == "__main__":
    main()
