"""What `retrain.replay` saves and what it costs: CPU seconds of a retraining, and accuracy on the test images.

A champion learns nine tenths of the images of each class; then all are there, and they are learned afresh, from the champion's
weights, and from these with so many known images for each new one. Figures are means over seeds; CPU seconds are those of all
cores, of training alone: so other work on the machine does not count. `benchmarks.fashion_mnist` writes a set.

    python -m benchmarks.replay cats-dogs=../shared/data/cats-dogs.tar:160 cifar10=../shared/data/cifar10.tar.gz:96
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import write_results
from benchmarks.source import parse_set, prepare_images, take_some

LATER = 10  # every so many images of a class come later
VARIANTS: Mapping[str, Mapping[str, Any] | None] = {
    "afresh": None,
    "warm_all": {},
    "warm_replay_1": {"replay": 1},
    "warm_replay_3": {"replay": 3},
    "warm_replay_10": {"replay": 10},
}


class Champion:
    """A model of the earlier images of a set, and all of its images, prepared in a home of their own.

    Attributes:
        accuracy: on the test images of the whole set.
    """

    def __init__(self, folder: Path, root: Path, *, image_size: int, seed: int) -> None:
        from pipelines.config import Recipe

        split = {"train": 0.6, "validation": 0.2, "test": 0.2}
        self._recipe = Recipe.model_validate({"image_size": image_size, "split": split, "seed": seed})
        self._home, self._source, self._folder = folder / "home", folder / "source", folder / "champion"
        images = [path for kind in sorted(root.iterdir()) for path in sorted(kind.iterdir())]
        self._link(root, [path for number, path in enumerate(images) if number % LATER])
        trained = self._finish()
        self._link(root, images[::LATER])
        self._read()
        self.accuracy: float = self._judge(trained)  # on the test images that are there now

    def retrain(self, settings: Mapping[str, Any] | None) -> dict[str, float]:
        """Accuracy on the test images and CPU seconds: afresh where `settings` is None, else a warm start with these."""
        started = time.process_time()
        trained = self._train_afresh() if settings is None else self._train_on(settings)
        seconds = time.process_time() - started
        return {"accuracy": self._judge(trained), "cpu_seconds": seconds}

    def _train_afresh(self) -> Any:
        from pipelines.training.phases import fine_tune, train_head

        recipe, inputs = self._recipe, (self._home, self._prepared)
        head = train_head(*inputs, self._embedded.features, config=self._config, head=recipe.head)
        return fine_tune(*inputs, head, self._embedded.activations, config=self._config, fine_tune=recipe.fine_tune)

    def _train_on(self, settings: Mapping[str, Any]) -> Any:
        from pipelines.training.phases import fine_tune
        from pipelines.warm_start import start_warm

        inputs, activations = (self._home, self._prepared), self._embedded.activations
        phase_2 = self._recipe.fine_tune.model_copy(update={"epochs": self._recipe.retrain.epochs})
        both = {"config": self._config, "fine_tune": phase_2}
        begun = start_warm(*inputs, self._folder, activations, **both, **settings)
        assert not isinstance(begun, str), begun
        return fine_tune(*inputs, begun, activations, **both)

    def _judge(self, trained: Any) -> float:
        from pipelines.evaluation.evaluate import evaluate

        accuracy: float = evaluate(self._home, self._prepared, trained, split="test", model=self._recipe.model).accuracy
        return accuracy

    def _link(self, root: Path, images: list[Path]) -> None:
        for path in images:
            link = self._source / path.relative_to(root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())

    def _read(self) -> None:
        """Prepares and embeds what is there."""
        from pipelines.slices import embed_slice, training_slice
        from pipelines.training.embed import embed

        self._index, self._prepared = prepare_images(self._home, self._source, self._recipe)
        self._embedded = embed(self._home, self._prepared, config=embed_slice(self._recipe))
        self._config = training_slice(self._recipe)

    def _finish(self) -> Any:
        """Trains on what is there, and leaves a run folder."""
        import yaml

        from pipelines.export.export import export
        from pipelines.store.artifacts import artifact_path

        self._read()
        recipe, trained = self._recipe, self._train_afresh()
        exported = export(self._home, self._source, self._prepared, trained, split="test", model=recipe.model)
        shutil.copytree(artifact_path(self._home, exported.artifact), self._folder)
        shutil.copy(artifact_path(self._home, self._index.artifact) / "index.parquet", self._folder)
        (self._folder / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        return trained


def main() -> None:
    import flows  # noqa: F401 (it says which of TensorFlow's kernels are used)
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="NAME=FOLDER_OR_TAR:SIZE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for source in arguments.sources:
        name, place, size = parse_set(source)
        runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
        earlier: list[float] = []
        for seed in range(1, arguments.seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                champion = Champion(Path(folder), take_some(place, Path(folder)), image_size=size, seed=seed)
                for variant, settings in VARIANTS.items():
                    runs[variant].append(champion.retrain(settings))
                earlier.append(champion.accuracy)
        figures[f"{name}.champion.accuracy"] = statistics.mean(earlier)
        for variant, made in runs.items():
            for figure in made[0]:
                figures[f"{name}.{variant}.{figure}"] = statistics.mean(run[figure] for run in made)
        print(name, {key: round(value, 4) for key, value in figures.items() if key.startswith(name)}, flush=True)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
