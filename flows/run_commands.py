"""The commands that run a flow: Prefect started, the stages shown, and what came of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.console import display_stages, print_bad_files, print_groups, print_metrics, print_where_to_look, say
from flows.request import check_request, find_source
from flows.surroundings import configure, start_prefect, stderr_to_log
from pipelines.errors import ImagemillError
from pipelines.quick_imports import quick_imports
from pipelines.store.artifacts import disk_full
from tasks.worker import working

if TYPE_CHECKING:
    from pipelines.config import Recipe

RUN_FILES = [
    ("metrics.json", "all figures"),
    ("confusion_matrix.png", "what was taken for what"),
    ("predictions.parquet", "each judged image with its probabilities"),
    ("history.parquet", "every epoch of both phases"),
    ("index.parquet", "every file seen, bad ones with the reason"),
    ("model.keras", "the model for Keras"),
    ("export/savedmodel", "the model that takes image bytes, for TensorFlow"),
    ("gate.json", "whether the model was promoted, and why"),
    ("config.yaml", "the whole recipe: imagemill train SOURCE --config config.yaml repeats the run"),
]
_DATABASE_BYTES = 1 << 20  # with less free space than this, what a database does not take is no riddle


@contextmanager
def _full_disk_named(home: Path) -> Iterator[None]:
    """Says that the disk is full where something else failed on it first: Prefect's database lies in the home too.

    Raises:
        RunError: in place of an error that is none of ours.
    """
    try:
        yield
    except ImagemillError:
        raise
    except Exception as error:
        if shutil.disk_usage(home).free >= _DATABASE_BYTES:
            raise
        raise disk_full(home) from error


@contextmanager
def _running(home: Path, recipe: Recipe, console: Console, *, verbose: bool) -> Iterator[None]:
    """Starts what a flow needs, and shows the stages of the flow in the block."""
    configure(home, verbose=verbose)
    devices = recipe.resources.devices
    with stderr_to_log(home / "logs", verbose=verbose), working(home, devices=devices, verbose=verbose) as worker:

        def meanwhile() -> None:
            if not (home / "records").exists():  # a new home: nothing can be a cache hit
                worker.expect()
            with quick_imports():
                import flows.retrain  # noqa: F401 (all that a flow imports)

        with _full_disk_named(home):
            start_prefect(console, meanwhile=meanwhile)
            with display_stages(console):
                yield


def run_train(
    source: str, recipe: Recipe, *, home: Path, out: Path | None, verify: bool = False, verbose: bool = False
) -> None:
    """Runs the train flow and shows what came of it."""
    console = Console()
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        check_request(find_source(source, recipe, home=home), recipe, home=home, out=out)
    with _running(home, recipe, console, verbose=verbose):
        from flows.train import train_model

        folder = Path(train_model(source, recipe, home=str(home), out=str(out) if out else None, verify=verify))
    _print_run(console, folder)


def run_retrain(source: str, recipe: Recipe, *, home: Path, again: bool = False, verbose: bool = False) -> None:
    """Runs the retrain flow and shows what came of it."""
    console = Console()
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        check_request(find_source(source, recipe, home=home), recipe, home=home, out=None)
    with _running(home, recipe, console, verbose=verbose):
        from flows.retrain import retrain

        outcome = retrain(source, recipe, str(home), again=again)
    if outcome["state"] == "repeated":
        verdict = {True: "was promoted", False: "was not promoted", None: "was judged"}[outcome["promoted"]]
        say(console, f"these images were trained on before with this recipe: version {outcome['version']} {verdict}")
        return
    _print_run(console, Path(outcome["challenger"]))


def _print_run(console: Console, folder: Path) -> None:
    from pipelines.sources.summary import find_conflicts
    from pipelines.store.artifacts import read_json
    from pipelines.store.index import read_index

    rows = read_index(folder / "index.parquet")
    print_bad_files(console, rows)
    conflicts = find_conflicts(rows)
    heading = f"{len(conflicts)} groups of equal or near-equal images lie in more than one class: a label must be wrong"
    print_groups(console, conflicts, heading=heading, all_in="`imagemill check` with --out")
    print_metrics(console, read_json(folder / "metrics.json"))
    print_where_to_look(console, folder, RUN_FILES)
