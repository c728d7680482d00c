"""Why the defaults are what they are: variants of the recipe on three real sets, accuracy on test images and CPU seconds.

Each variant changes one thing of the default recipe. Figures are means over seeds; CPU seconds are those of all cores, so that
other work on the machine does not count. What is embedded does not depend on the seed: it is measured once,
into an empty store. `benchmarks.fashion_mnist` writes a third set, to be given as fashion=FOLDER:96.

    python -m benchmarks.defaults cats-dogs=../shared/data/cats-dogs.tar:160 cifar10=../shared/data/cifar10.tar.gz:96
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results import write_results
from benchmarks.source import parse_set, prepare_images, take_some

# Those that embed alike stand together: one after another finds what is stored.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "plateau_10_1e-4": {"fine_tune": {"schedule": "plateau", "epochs": 10, "learning_rate": 1e-4}},
    "plateau_10_1e-3": {"fine_tune": {"schedule": "plateau", "epochs": 10, "learning_rate": 1e-3}},
    "cosine_5_3e-4": {"fine_tune": {"learning_rate": 3e-4}},
    "cosine_5_3e-3": {"fine_tune": {"learning_rate": 3e-3}},
    "cosine_10_1e-3": {"fine_tune": {"epochs": 10}},
    "one_cycle_5_1e-3": {"fine_tune": {"schedule": "one_cycle"}},
    "head_rate_3e-3": {"head": {"learning_rate": 3e-3}},
    "head_epochs_5": {"head": {"epochs": 5}},
    "no_fine_tune": {"fine_tune": {"epochs": 0}},
    "views_1": {"cache": {"views": 1}},
    "views_3": {"cache": {"views": 3}},
    "views_4": {"cache": {"views": 4}},
    "layers_9": {"fine_tune": {"layers": 9}},
    "layers_60": {"fine_tune": {"layers": 60}},
}


class Source:
    """One set: its images prepared in a home of their own, split at random."""

    def __init__(self, folder: Path, root: Path, *, image_size: int, train: float) -> None:
        from pipelines.config import Recipe

        split = {"train": train, "validation": train / 3, "test": 1 - train * 4 / 3}
        self._base = {"image_size": image_size, "split": split}
        self._home = folder / "home"
        _, self._prepared = prepare_images(self._home, root, Recipe.model_validate(self._base))
        self._stored: Any = None  # what the activations that are there follow from
        self._embed_seconds = 0.0

    def run(self, changes: Mapping[str, Any], *, seed: int) -> dict[str, float]:
        """Embeds, trains both phases and judges on the test split."""
        from pipelines.config import Recipe
        from pipelines.evaluation.evaluate import evaluate
        from pipelines.slices import embed_slice, training_slice
        from pipelines.training.embed import embed
        from pipelines.training.phases import fine_tune, train_head

        recipe = Recipe.model_validate({**self._base, **changes, "seed": seed})
        home, prepared, config = self._home, self._prepared, training_slice(recipe)
        seconds: dict[str, float] = {}
        stored = replace(embed_slice(recipe), seed=0, head_epochs=0, fine_tune_epochs=0)
        is_new = stored != self._stored
        if is_new:
            shutil.rmtree(home / "activations", ignore_errors=True)

        def timed(name: str, work: Callable[[], Any]) -> Any:
            started = time.process_time()
            result = work()
            seconds[f"{name}_cpu_seconds"] = time.process_time() - started
            return result

        embedded = timed("embed", lambda: embed(home, prepared, config=embed_slice(recipe)))
        if is_new:
            self._stored, self._embed_seconds = stored, seconds["embed_cpu_seconds"]
        seconds["embed_cpu_seconds"] = self._embed_seconds
        head = timed("head", lambda: train_head(home, prepared, embedded.features, config=config, head=recipe.head))
        trained = timed(
            "fine_tune",
            lambda: fine_tune(home, prepared, head, embedded.activations, config=config, fine_tune=recipe.fine_tune),
        )
        judged = evaluate(home, prepared, trained, split="test", model=recipe.model)
        return {"accuracy": judged.accuracy, **seconds}


def main() -> None:
    import flows  # noqa: F401 (it says which of TensorFlow's kernels are used)
    from pipelines.allocator import keep_freed_memory

    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="NAME=FOLDER_OR_TAR:SIZE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, help="images of each class, of all splits together")
    parser.add_argument("--train", type=float, default=0.6, help="share of the training split; a third as much for validation")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated names")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for source in arguments.sources:
        name, place, size = parse_set(source)
        with tempfile.TemporaryDirectory() as folder:
            root = take_some(place, Path(folder), per_class=arguments.per_class)
            prepared = Source(Path(folder), root, image_size=size, train=arguments.train)
            for variant in arguments.variants.split(","):
                runs = [prepared.run(VARIANTS[variant], seed=seed) for seed in range(1, arguments.seeds + 1)]
                for figure in runs[0]:
                    figures[f"{name}.{variant}.{figure}"] = statistics.mean(run[figure] for run in runs)
                print(f"{name} {variant}: {figures[f'{name}.{variant}.accuracy']:.4f}", flush=True)
    write_results(figures, arguments.json)


if __name__ == "__main__":
    main()
