"""The `imagemill` command. Nothing heavy is imported before the arguments have been understood.

Exit status: 0 done; 1 the run failed; 2 the request was wrong; 130 interrupted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import model_commands, service_cli
from flows.options import Home, RegistryUri, Verbose
from flows.request import DEFAULT_HOME, check_home, find_registry, find_source
from flows.run_commands import run_retrain, run_train
from flows.surroundings import stderr_to_log
from pipelines.allocator import keep_freed_memory
from pipelines.errors import ImagemillError, InputError, one_line
from pipelines.run_folder import CONFIG
from pipelines.sources.source import TFDS_PREFIX

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="imagemill",
    help="A folder of images in, a tested and exported model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Argument(help="A run folder, or models:/NAME@ALIAS or models:/NAME/VERSION.", show_default=False)]
Source = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder of images per class; a .csv or .parquet table of path and label; or tfds:NAME.",
        show_default=False,
    ),
]
Config = Annotated[Path | None, typer.Option(help="A recipe in YAML; config.yaml of a run repeats it.", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe value, such as head.epochs=3.")]

app.add_typer(model_commands.app)
app.add_typer(service_cli.app)

_INTERRUPTED = 130


@app.command()
def train(
    source: Source,
    config: Config = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", show_default="runs/<date>-<name>")] = None,
    home: Home = Path(DEFAULT_HOME),
    verify: Annotated[
        bool, typer.Option("--verify", help="Read files and shards again whose size and time are as they were.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Train, evaluate and export a model."""
    from pipelines.recipes import load_recipe

    run_train(source, load_recipe(config, set_ or []), home=home, out=out, verify=verify, verbose=verbose)


@app.command()
def retrain(
    source: Source,
    config: Config = None,
    set_: Set = None,
    again: Annotated[bool, typer.Option("--again", help="Also where these images were trained on with this recipe.")] = False,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Train a challenger on a source as it is now, and promote it if the gate finds it no worse than the champion."""
    from pipelines.recipes import load_recipe

    run_retrain(source, load_recipe(config, set_ or []), home=home, again=again, verbose=verbose)


@app.command()
def clean(
    older_than: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Remove what no run has used for so long.")] = 30,
    keep_champions: Annotated[
        int, typer.Option(min=1, metavar="N", help="Former champions to keep for rollbacks, whatever their age.")
    ] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Remove from the home what can be made again and was not used for long, and models that nobody goes back to."""
    from flows.clean import clean_home, show_cleaned

    check_home(home)
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        found = clean_home(home, older_than_days=older_than, keep_champions=keep_champions, dry_run=dry_run)
    show_cleaned(found, dry_run=dry_run, console=Console())


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", show_default="runs/<date>-digits")] = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Train on scikit-learn's handwritten digits: a real run in a few minutes."""
    from flows.console import say

    check_home(home)
    console = Console()
    folder = home / "demo" / "digits"
    say(console, f"Writing scikit-learn's 1,797 handwritten digits to {folder} as a class folder")
    from pipelines.demo import demo_recipe, write_digits  # takes a second

    write_digits(folder)
    run_train(str(folder), demo_recipe(), home=home, out=out, verbose=verbose)


@app.command()
def check(
    source: Source,
    config: Config = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder for index.parquet and check.json.", show_default=False)] = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Look at a source without training: bad files, duplicates, leaks between splits, statistics."""
    from flows.check import check_source
    from pipelines.recipes import load_recipe

    check_home(home)
    recipe = load_recipe(config, set_ or [])
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        check_source(find_source(source, recipe, home=home), recipe, home=home, out=out, console=Console())


@app.command()
def profile(
    source: Source,
    config: Config = None,
    set_: Set = None,
    json_: Annotated[Path | None, typer.Option("--json", help="File for the same numbers.", show_default=False)] = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Measure where the time of a run on a source would go, and say what bounds it."""
    from flows.profile import profile_source
    from pipelines.recipes import load_recipe

    check_home(home)
    recipe = load_recipe(config, set_ or [])
    keep_freed_memory()  # as a run does
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        profile_source(find_source(source, recipe, home=home), recipe, json_file=json_, console=Console())


@app.command()
def describe(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run folder, models:/NAME@ALIAS or models:/NAME/VERSION, a recipe in YAML, or the name of a backbone.",
            show_default="the default recipe",
        ),
    ] = None,
    set_: Set = None,
    classes: Annotated[int, typer.Option(help="How many classes the model of a recipe tells apart.")] = 10,
    json_: Annotated[Path | None, typer.Option("--json", help="File for the same numbers.", show_default=False)] = None,
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Show a model layer by layer: shapes, parameters, multiply-adds, receptive field."""
    from flows.describe import describe as describe_model
    from flows.models import find_model, is_reference

    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        if model is not None and is_reference(model):
            model = str(find_model(model, find_registry(registry, home=home)))
        describe_model(model, set_ or [], classes=classes, json_file=json_, console=Console())


@app.command()
def evaluate(
    model: Model,
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and its kin.", show_default=False)] = None,
    split: Annotated[
        str, typer.Option(help="auto, all, train, validation or test; auto takes the test folder where there is one.")
    ] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="Recipe whose tfds section is read.", show_default="that of the run")
    ] = None,
    set_: Set = None,
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Evaluate a model on a labelled source."""
    from flows.evaluate import evaluate_model
    from flows.models import find_model
    from pipelines.recipes import check_section, load_recipe

    check_home(home)
    check_section(set_ or [], section="tfds")
    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        folder = find_model(model, find_registry(registry, home=home))
        own = folder / CONFIG
        recipe = load_recipe(config or (own if source.startswith(TFDS_PREFIX) and own.is_file() else None), set_ or [])
        evaluate_model(folder, find_source(source, recipe, home=home), split=split, out=out, console=Console())


@app.command()
def predict(
    model: Model,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images at any depth.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Parquet file to write.", show_default=False)],
    registry: RegistryUri = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Predict the class of images."""
    from flows.models import find_model
    from flows.predict import predict_images

    with stderr_to_log(Path(tempfile.gettempdir()), verbose=verbose):
        predict_images(find_model(model, find_registry(registry, home=home)), images, out=out, console=Console())


@app.command()
def watch(
    source: Source,
    name: Annotated[str | None, typer.Option(help="Name of the data set.", show_default="that of the source")] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds for which the source must have been quiet.")] = 120,
    every: Annotated[
        float | None, typer.Option(min=1, help="Look again after so many seconds, until Ctrl-C.", show_default="look once")
    ] = None,
    home: Home = Path(DEFAULT_HOME),
    verbose: Verbose = False,
) -> None:
    """Look whether a source has changed, and tell Prefect when it is quiet again: the event dataset.changed."""
    from flows.request import find_watchable
    from flows.watching import watch_source

    find_watchable(source, home=home).peek()
    watch_source(source, dataset=name, settle_seconds=settle, every_seconds=every, home=home, verbose=verbose)


def main() -> None:
    """Entry point: every error becomes one line and an exit status."""
    try:
        status = app(standalone_mode=False) or 0
        if status == _INTERRUPTED:  # typer turns KeyboardInterrupt into this
            kept = "; what was done is kept, and the same command goes on from there"
            _fail(f"interrupted{kept if {'train', 'demo'} & set(sys.argv[1:2]) else ''}", status=status)
        sys.exit(status)
    except typer.TyperException as error:
        # Wrong options and arguments; without any arguments the message is the help.
        hint = "" if len(sys.argv) == 1 else " (see imagemill --help)"
        sys.exit(_fail(f"{getattr(error, 'message', None) or error}{hint}", status=2))
    except InputError as error:
        sys.exit(_fail(str(error), status=2))
    except ImagemillError as error:
        sys.exit(_fail(str(error), status=1))
    except OSError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        place = f": {error.filename}" if error.filename else ""
        sys.exit(_fail(f"{error.strerror or one_line(error)}{place}{notes}", status=1))
    except Exception as error:
        notes = "; ".join(getattr(error, "__notes__", []))
        if not notes:
            raise
        sys.exit(_fail(f"{type(error).__name__}: {one_line(error)} ({notes})", status=1))


def _fail(message: str, *, status: int) -> int:
    print(f"imagemill: {message}", file=sys.stderr)
    return status
