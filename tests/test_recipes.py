"""The recipe: what is refused, with which words, and what a file and overrides make of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.config import FineTuneConfig, ModelConfig, Recipe
from pipelines.errors import InputError
from pipelines.recipes import least_batch_size, load_recipe, suit_recipe


def test_defaults_survive_a_round_trip_through_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(Recipe().model_dump(mode="json")))
    assert load_recipe(path, []) == Recipe()


def test_overrides_win_over_the_file_and_the_last_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("head: {epochs: 3, learning_rate: 1e-2}\n")
    recipe = load_recipe(path, ["head.epochs=5", "head.epochs=6", "split={train: .8, validation: .2, test: 0}"])
    assert (recipe.head.epochs, recipe.head.learning_rate, recipe.split.test) == (6, 0.01, 0)


def test_off_needs_no_quotes_though_yaml_reads_a_boolean(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("cache: {mode: off}\n")
    assert load_recipe(path, []).cache.mode == load_recipe(None, ["cache.mode=off"]).cache.mode == "off"
    with pytest.raises(InputError, match=r"`cache.mode`: .* received True"):
        load_recipe(None, ["cache.mode=on"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.epoch=3", "unknown key `head.epoch`; did you mean `head.epochs`"),
        ("epcohs=3", "unknown key `epcohs`; did you mean `head.epochs`"),
        ("dropout=.2", "did you mean `model.dropout`"),
        ("batch_size=0", "`batch_size`: .* greater than or equal to 1; received 0"),
        ("image_size=big", "`image_size`: .* integer.*; received 'big'"),
        ("model.backbone=VGG", "unknown backbone 'VGG'; choose one of: EfficientNetLite0, MobileNetV2,.*ConvNeXtTiny"),
        ("split.train=.5", "`split`: the three fractions must sum to 1, and they sum to 0.7"),
        ("fine_tune.learning_rate=.nan", "`fine_tune.learning_rate`"),
        ("store.layout=png", "`store.layout`: .*'auto', 'decoded' or 'encoded'; received 'png'"),
        ("store.budget_gib=0", "`store.budget_gib`: .* greater than 0; received 0"),
        ("sampling=weighted", "`sampling`: .*'shuffle' or 'balanced'; received 'weighted'"),
        ("augment.where=gpu", "`augment.where`: .*'dataset', 'model' or 'none'"),
        (
            "augment={where: model, mixup: .2, cutmix: 1}",
            "`augment`: `where: model` has no Keras layer that does mixup, cutmix",
        ),
        ("augment={where: model, rand_augment: 2}", "set it to 0, or use `where: dataset`"),
        ("augment.saturation=1", "`augment.saturation`: .* less than 1; received 1"),
        ("model.backbone={}", "unknown backbone {}"),
        (
            "fine_tune.layers=0",
            r"`fine_tune\.layers`: must be a number of layers, at least 1, the name of a block, or all; received 0$",
        ),
        ("fine_tune.layers='0'", "must be a number of layers, at least 1, the name of a block, or all; received 0$"),
        ("fine_tune.layers=[20]", r"the name of a block, or all; received \[20\]$"),
        ("head.epochs=0", "^recipe: `head.epochs` must be at least 1 for EfficientNetLite0, whose head must learn first"),
        ("model.blocks.pooling=stride", "`model`: `blocks` is for SmallCNN or SmallSeparableCNN alone; EfficientNetLite0 has"),
        ("model={backbone: SmallCNN, blocks: {widths: [8, 8]}}", "`model.blocks`: .* received 2 widths and 3 depths"),
        ("model={backbone: SmallCNN, weights: imagenet}", "`model`: `weights` must be none or a file for SmallCNN"),
        ("head.momentum=.9", "`head`: `momentum` is of `optimizer: sgd`; adam has its own"),
        ("head={optimizer: adam, weight_decay: .1}", "`head`: `weight_decay` is not of `optimizer: adam`; choose adamw"),
        ("head={optimizer: adamw, weight_decay: 0}", "`head`: `optimizer: adamw` without `weight_decay` is adam"),
        ("fine_tune={schedule: cosine, plateau_patience: 3}", "`fine_tune`: `plateau_patience` is of `schedule: plateau`"),
        ("head={schedule: one_cycle, warmup_epochs: 1}", "`warmup_epochs` must be 0 with `schedule: one_cycle`"),
        ("fine_tune.warmup_epochs=10", "`fine_tune`: `warmup_epochs` must be below `epochs` \\(5\\); received 10"),
        ("head.schedule=step", "`head.schedule`: .*'plateau', 'cosine', 'one_cycle' or 'constant'; received 'step'"),
        ("head.layer_decay=.5", "unknown key `head.layer_decay`; did you mean `fine_tune.layer_decay`"),
        ("head.ema=1", "`head.ema`: .* less than 1; received 1"),
        ("resources.precision=float16", "`resources.precision`: .*'auto', 'float32', 'mixed_float16' or 'mixed_bfloat16'"),
        ("model.blocks.depths=[27]", "`model.blocks.depths.0`: input should be less than or equal to 26"),
        ("retrain.replay=3", "`retrain`: `replay` is of `warm_start: true`: choose that too"),
        ("epochs", "`--set` takes KEY=VALUE"),
        ("seed.x=1", "`seed`"),
        ("head={", "not YAML"),
    ],
)
def test_a_wrong_value_is_said_in_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(None, [override])
    assert "\n" not in str(caught.value)


def test_a_quoted_number_of_layers_is_a_number() -> None:
    assert load_recipe(None, ["fine_tune.layers='20'"]).fine_tune.layers == 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.epochs=2", "must be 0 .*; received 2"),
        ("fine_tune.epochs=0", "must be at least 1"),
        ("fine_tune.layers=5", "must be all .*; received 5"),
        ("fine_tune.layers=block2a", "must be all .*; received 'block2a'"),
    ],
)
def test_a_from_scratch_model_has_the_second_phase_alone_and_learns_whole(override: str, message: str) -> None:
    with pytest.raises(InputError, match=f"`{override.partition('=')[0]}` {message}"):
        load_recipe(None, ["model.backbone=SmallSeparableCNN", override])


def test_a_from_scratch_model_has_nothing_to_cache() -> None:
    with pytest.raises(InputError, match=r"`cache\.mode: features` can't be had with SmallCNN, all of which learns"):
        load_recipe(None, ["model.backbone=SmallCNN", "cache.mode=features"])


def test_a_from_scratch_backbone_brings_its_defaults_and_what_is_written_wins(tmp_path: Path) -> None:
    written = {"model": {"backbone": "SmallCNN", "dropout": 0.1}, "fine_tune": {"epochs": 3}, "augment": {"zoom": 0.2}}
    recipe = Recipe.model_validate(written)
    assert (recipe.head.epochs, recipe.fine_tune.layers, recipe.model.weights, recipe.model.hidden_units) == (
        0,
        "all",
        "none",
        256,
    )
    assert (recipe.model.dropout, recipe.fine_tune.epochs, recipe.augment.zoom, recipe.augment.rotation) == (0.1, 3, 0.2, 0)
    sections = Recipe(model=ModelConfig(backbone="SmallCNN", weights="none", dropout=0.1), fine_tune=FineTuneConfig(epochs=3))
    assert sections == recipe.model_copy(update={"augment": sections.augment})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(path, []) == recipe


def test_small_images_are_trained_from_scratch_unless_a_recipe_says_how() -> None:
    suited, why = suit_recipe(load_recipe(None, ["seed=5", "batch_size=64"]), side_px=28, train_images=40_000)
    assert (suited.model.backbone, suited.image_size, suited.batch_size, suited.seed) == ("SmallCNN", 32, 64, 5)
    assert why is not None
    assert why.startswith("images of 28 px (the median's longest side): SmallCNN from scratch at 32 px; ")
    assert "`model.backbone`" in why
    again, nothing = suit_recipe(Recipe.model_validate(suited.model_dump(mode="json")), side_px=28, train_images=40_000)
    assert (again, nothing) == (suited, None)  # what config.yaml holds is not chosen again


def test_photos_are_trained_by_transfer() -> None:
    recipe, why = suit_recipe(Recipe(), side_px=49, train_images=1000)
    assert recipe == Recipe()
    assert why is not None
    assert "EfficientNetLite0 by transfer at 160 px" in why


@pytest.mark.parametrize(
    "setting",
    [
        "image_size=96",
        "fine_tune.layers=5",
        "fine_tune.epochs=0",
        "head.epochs=3",
        "model.dropout=.2",
        "cache.mode=features",
        "cache.mode=activations",
    ],
)
def test_a_value_that_means_transfer_is_not_overruled(setting: str) -> None:
    recipe = load_recipe(None, [setting])
    assert suit_recipe(recipe, side_px=32, train_images=1000)[0] == recipe


@pytest.mark.parametrize(("side_px", "size"), [(8, 32), (33, 36), (48, 48)])
def test_small_images_keep_their_size(side_px: int, size: int) -> None:
    assert suit_recipe(Recipe(), side_px=side_px, train_images=1000)[0].image_size == size


@pytest.mark.parametrize(("images", "batch_size"), [(50_000, 128), (2048, 128), (2047, 64), (200, 8), (5, 4)])
def test_few_images_make_small_batches(images: int, batch_size: int) -> None:
    assert suit_recipe(Recipe(), side_px=32, train_images=images)[0].batch_size == batch_size


@pytest.mark.parametrize(
    ("settings", "side_px", "images", "batch_size"),
    [
        ([], 400, 31, 8),
        ([], 400, 6, 4),
        ([], 400, 32, 32),
        (["head.epochs=3"], 400, 20, 8),
        (["model.backbone=SmallCNN"], 32, 120, 8),
        (["model.backbone=SmallCNN"], 32, 128, 128),
        (["batch_size=64"], 400, 20, 64),
        (["model.backbone=SmallCNN", "batch_size=64"], 32, 20, 64),
        (["model.backbone=SmallCNN", "batch_size=128"], 32, 20, 128),
        (["batch_size=60", "resources.devices=3"], 400, 20, 60),
        (["resources.devices=16"], 400, 20, 16),
        (["resources.devices=32"], 400, 20, 32),
    ],
)
def test_a_default_batch_that_can_not_be_filled_is_made_smaller_which_is_said(
    settings: list[str], side_px: int, images: int, batch_size: int
) -> None:
    recipe = load_recipe(None, settings)
    suited, why = suit_recipe(recipe, side_px=side_px, train_images=images)
    assert suited == recipe.model_copy(update={"batch_size": batch_size})
    assert least_batch_size(recipe) == (
        recipe.batch_size if any("batch" in setting for setting in settings) else recipe.resources.devices
    )
    said = f"batches of {batch_size}, since only {images} images train; to choose yourself, set `batch_size`"
    assert (said in (why or "")) is (batch_size != recipe.batch_size)


def test_rare_classes_are_made_up_for_once() -> None:
    with pytest.raises(InputError, match=r"`sampling: balanced` and `fine_tune\.class_weights: balanced` both make up"):
        load_recipe(None, ["sampling=balanced", "fine_tune.class_weights=balanced"])


def test_what_is_left_out_has_the_optimizer_s_default() -> None:
    decays = {name: load_recipe(None, [f"head.optimizer={name}"]).head.used_weight_decay for name in ("adam", "adamw", "sgd")}
    assert decays == {"adam": 0, "adamw": 0.004, "sgd": 0}
    assert load_recipe(None, ["head.optimizer=sgd"]).head.used_momentum == 0.9
    assert load_recipe(None, ["head={optimizer: sgd, momentum: 0}"]).head.used_momentum == 0


def test_a_phase_that_is_skipped_may_keep_its_warm_up() -> None:
    assert load_recipe(None, ["fine_tune={epochs: 0, warmup_epochs: 2}"]).fine_tune.warmup_epochs == 2


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="`seed` is a value, not a section"):
        load_recipe(None, ["seed=1", "seed.x=1"])


@pytest.mark.parametrize(("content", "message"), [("- 1\n", "a mapping"), ("a: [", "not YAML"), (None, "can't be read")])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_recipe(path, [])


def test_a_recipe_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]


AT_ONCE = ["pipelines.config", "pipelines.contracts", "pipelines.recipes", "pipelines.slices", "flows.cli", "flows.request"]


@pytest.mark.parametrize("module", [*AT_ONCE, "flows.retrain"])
def test_what_is_needed_at_once_imports_nothing_heavy(module: str) -> None:
    """The flows need Prefect besides; all else that is heavy is for the child process."""
    heavy = [
        "tensorflow",
        "keras",
        "sklearn",
        "scipy.stats",
        "matplotlib",
        "mlflow",
        *(["prefect"] if module in AT_ONCE else []),
    ]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
