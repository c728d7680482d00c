"""`imagemill profile`: where the time goes for a source and a recipe, and what to change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.console import display_stages, print_table, say
from flows.request import check_batch_size, check_model
from pipelines.bottleneck import Rates, judge
from pipelines.config import Recipe
from pipelines.errors import InputError
from pipelines.recipes import suit_recipe
from pipelines.sources.source import Source
from pipelines.store.artifacts import file_in_place, write_json
from tasks.progress import reporter

_PARTS = [
    ("read", "the bytes of a file, once"),
    ("examine", "the check for damage, once"),
    ("decode", "decoding and resizing, once"),
    ("gather", "copied or decoded out of the store, on one core"),
    ("warp", "flip, zoom, ... in one, RandAugment, on one core"),
    ("colour", "contrast, brightness, ..., erasing, on one core"),
    ("input", "batches of images: these three, MixUp and CutMix"),
    ("embed", "the frozen part of the network, once for each view"),
    ("head_input", "batches for the head: images or stored features"),
    ("head_step", "a step that trains the head"),
    ("head_wait", "the share of time that it waits for input"),
    ("fine_tune_input", "batches for the top: images or stored activations"),
    ("fine_tune_step", "a step that trains the top of the backbone too"),
    ("fine_tune_wait", "the share of time that it waits for input"),
]


def profile_source(source: Source, recipe: Recipe, *, json_file: Path | None, console: Console) -> None:
    """Measures each part of a run on some images of a source and prints what bounds it.

    Nothing but a TFDS data set, which is written out once, is left in the home.

    Args:
        source: where the images come from.
        recipe: of the run that is asked about.
        json_file: where to write the same numbers, or None.
        console: to print on.

    Raises:
        InputError: a run on this source would be refused, or none of the files can be read.
    """
    if json_file is not None and json_file.is_dir():
        raise InputError(f"`--json` must be a file to write; {str(json_file)!r} is a folder")
    check_model(recipe)
    classes, files = source.find()
    check_batch_size(recipe, len(files))
    from pipelines.profile import measure_source
    from pipelines.profile_files import draw_sample, median_side

    sample = draw_sample(files, batch_size=recipe.batch_size)
    if side_px := median_side(source.root, sample):
        recipe, choice = suit_recipe(recipe, side_px=side_px, train_images=round(len(files) * recipe.split.train))
        if choice:
            say(console, choice)
    with display_stages(console):
        profile = measure_source(source.root, sample, classes, recipe, images=len(files), report=reporter("profile"))
    rates, left_out = profile.rates, f", {profile.bad_files} unreadable" if profile.bad_files else ""
    epochs = {"head_epochs": recipe.head.epochs, "fine_tune_epochs": recipe.fine_tune.epochs}
    verdict = judge(rates, **epochs, stored=profile.stored, layout=profile.layout, from_scratch=recipe.model.from_scratch)
    if recipe.augment.where == "model":
        verdict += "; a step holds the augmentation layers: `augment.where=dataset` would take them out of it"
    _print_rates(console, rates, title=f"{profile.images} of {len(files)} images{left_out}, {recipe.image_size} px")
    say(console, verdict)
    say(console, "not measured: the start of Prefect, the evaluation and the export; timings.json of a run has their seconds")
    if json_file is not None:
        content = {
            "source": source.name,
            "files": len(files),
            "images": profile.images,
            "bad_files": profile.bad_files,
            "recipe": recipe.model_dump(mode="json"),
            "views": rates.views,
            "learn_from_stored_activations": profile.stored,
            "store_layout": profile.layout,
            "images_per_second": {
                name: value for name, value in asdict(rates).items() if name != "views" and not name.endswith("_wait")
            },
            "waiting": {name.removesuffix("_wait"): value for name, value in asdict(rates).items() if name.endswith("_wait")},
            "verdict": verdict,
        }
        with file_in_place(json_file) as temporary:
            write_json(temporary, content)


def _print_rates(console: Console, rates: Rates, *, title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    table.add_column("images/s", justify="right")
    table.add_column("what")
    for name, what in _PARTS:
        table.add_row(name.replace("fine_tune", "fine-tune").replace("_", " "), _cell(name, getattr(rates, name)), what)
    print_table(console, table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "not in it"
    return f"{value:.1%}" if name.endswith("_wait") else f"{value:,.0f}"
