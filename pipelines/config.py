"""The schema of a recipe: everything that a run can be told, with its defaults. Imports no TensorFlow.

Each default names its source. A stage of the DAG is handed only the part that it reads, so that changing one value re-runs
just the stages that depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.defaults import FROM_SCRATCH, fill_from_scratch

BackboneName = Literal[
    "EfficientNetLite0",
    "MobileNetV2",
    "MobileNetV3Large",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "Xception",
    "ConvNeXtTiny",
    "SmallCNN",
    "SmallSeparableCNN",
]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)
SPLITS: tuple[str, ...] = ("train", "validation", "test")
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Schedule = Literal["plateau", "cosine", "one_cycle", "constant"]


Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=32)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitConfig(Section):
    """Fractions of the images of each class, drawn from content hashes; 0 leaves a split out.

    Used where the source has no split folders (and to carve a validation split out of `train` where it has none).
    """

    train: float = Field(0.8, gt=0, le=1)
    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0, description="of the draw, apart from the seed of training: test images stay test images")
    near_equal_bits: int = Field(
        16,
        ge=0,
        le=64,
        description="images whose 256-bit perceptual hashes differ in at most so many bits share a split (sources/examine.py)",
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the three fractions must sum to 1, and they sum to {total:g}")
        return self


class TfdsSplits(Section):
    """The split of a TFDS data set that each of ours is, in TFDS's notation, such as `train[:80%]`; None leaves one out.

    With all None, the splits named train, validation (or val) and test are taken as they are; where there is one split
    only, all of it is drawn as `split` says.
    """

    train: str | None = Field(None, min_length=1)
    validation: str | None = Field(None, min_length=1)
    test: str | None = Field(None, min_length=1)


class TfdsConfig(Section):
    """Read where SOURCE is `tfds:NAME`, and by `tfds:image_folder`, whose folder is `data_dir`."""

    data_dir: str | None = Field(
        None, min_length=1, description="where TFDS keeps data sets; default: TFDS_DATA_DIR, or ~/tensorflow_datasets, as TFDS"
    )
    splits: TfdsSplits = TfdsSplits()
    download: bool = Field(True, description="fetch and prepare what is not there yet, as tfds.load does")


class AugmentConfig(Section):
    """Random changes of the training images; never active at inference. Conventions of the Keras layers of the same names.

    A number of 0 switches its augmentation off. What is on by default is what Keras's transfer-learning tutorial applies
    (flip, rotation .1) with a zoom of the same size; everything else is off, since whether it helps depends on the images.
    """

    where: Literal["dataset", "model", "none"] = Field(
        "dataset",
        description="dataset: one warp on uint8 rows; model: Keras layers in the training graph, gone from the export",
    )
    engine: Literal["opencv", "tensorflow"] = Field(
        "opencv", description="of `where: dataset`; the same numbers either way (docs/decisions/0009: OpenCV is the faster one)"
    )
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = Field(0.1, ge=0, le=0.5, description="largest angle either way, in full turns (Keras's tutorials: .1)")
    zoom: float = Field(0.1, ge=0, lt=1, description="largest relative change of scale either way (Keras's tutorials: .1)")
    translation: float = Field(0.0, ge=0, le=1, description="largest shift either way, as a fraction of the side")
    shear: float = Field(0.0, ge=0, le=1, description="largest shift of a pixel per pixel of the other axis, either way")
    random_resized_crop: float = Field(0.0, ge=0, le=1, description="smallest area cut out, as a fraction (Inception: .08)")
    contrast: float = Field(0.0, ge=0, le=1, description="factor on the distance from the image's mean: 1 +- this")
    brightness: float = Field(0.0, ge=0, le=1, description="largest shift either way, as a fraction of the value range")
    saturation: float = Field(0.0, ge=0, lt=1, description="s: factor between (1-s)/(1+s) and its inverse; Keras's .5 +- s/2")
    hue: float = Field(0.0, ge=0, le=1, description="largest turn of the hue either way, in half turns")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a rectangle of the image becomes noise")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of the Beta distribution of the share (paper, ImageNet: .2)")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of the Beta distribution of the area (paper: 1)")
    rand_augment: int = Field(0, ge=0, le=10, description="operations drawn for each image (paper, ResNet-50: 2)")
    rand_augment_magnitude: float = Field(0.9, ge=0, le=1, description="of these, 1 the strongest (paper, ResNet-50: 9 of 10)")

    @property
    def soft_labels(self) -> bool:
        """Whether training labels are one distribution over the classes per image, float32 [B, classes], not int64 [B]."""
        return self.where == "dataset" and (self.mixup > 0 or self.cutmix > 0)

    @property
    def changes_images(self) -> bool:
        """Whether the data set's images are changed at all."""
        off = AugmentConfig(where="dataset", horizontal_flip=False, rotation=0, zoom=0)
        return self.where == "dataset" and self.model_copy(update={"engine": off.engine}) != off

    @property
    def uncacheable(self) -> str | None:
        """What of this makes a training image depend on more than its own numbers for an epoch, or None."""
        if self.soft_labels:
            return "`augment.mixup` or `augment.cutmix`, which mix images anew in each epoch"
        if self.where == "model":
            return "`augment.where: model`, whose layers run in the training step"
        return None

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        beyond = [name for name in ("random_resized_crop", "mixup", "cutmix", "rand_augment") if getattr(self, name)]
        if self.where == "model" and beyond:
            raise ValueError(
                f"`where: model` has no Keras layer that does {', '.join(beyond)} to images alone;"
                " set it to 0, or use `where: dataset`"
            )
        return self


class StoreConfig(Section):
    """How resized images are kept between epochs and runs."""

    layout: Literal["auto", "decoded", "encoded"] = Field(
        "auto",
        description="decoded: as pixels, the fastest; encoded: as JPEG, for sets too large for that; auto: by the budget",
    )
    budget_gib: float = Field(
        20.0,
        gt=0,
        description="of disk that `auto` may take for decoded pixels: 280,000 images of 160 px, a twelfth of a 256 GB disk",
    )


class BlocksConfig(Section):
    """The blocks of convolutions that a from-scratch model is made of, and what shrinks the image between them.

    As in VGG: each block repeats convolutions of one width, and each is half as wide and high as the one before.
    """

    widths: tuple[Width, ...] = Field((32, 64, 128), min_length=1, max_length=6, description="filters in each block")
    depths: tuple[Depth, ...] = Field((2, 2, 1), min_length=1, max_length=6, description="convolutions in each block")
    pooling: Literal["max", "average", "stride"] = Field(
        "max", description="between blocks; stride: a convolution of stride 2 instead (All-CNN, arXiv 1412.6806)"
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="between blocks, after the pooling (Keras's CIFAR-10 example: .25)")

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if len(self.widths) != len(self.depths):
            raise ValueError(
                "`widths` and `depths` must name equally many blocks;"
                f" received {len(self.widths)} widths and {len(self.depths)} depths"
            )
        return self


class ModelConfig(Section):
    """The backbone and the head that is put on it: global pooling, a hidden layer where there is one, dropout, logits.

    With a from-scratch backbone other defaults hold: see `pipelines.defaults`.
    """

    backbone: BackboneName = "EfficientNetLite0"
    weights: str = Field("imagenet", min_length=1, description="imagenet | none | path of a Keras weights file")
    global_pooling: Literal["average", "max"] = Field("average", description="of the feature map (Keras's tutorials: average)")
    hidden_units: int = Field(0, ge=0, le=65_536, description="of a ReLU layer before the last one; 0 leaves it out")
    dropout: float = Field(0.3, ge=0, lt=1, description="before the last layer")
    blocks: BlocksConfig = BlocksConfig()

    @property
    def from_scratch(self) -> bool:
        """Whether there is nothing pretrained: all of the model learns, BatchNormalization too."""
        return self.backbone in FROM_SCRATCH

    @model_validator(mode="after")
    def _suit_the_backbone(self) -> Self:
        if self.from_scratch and self.weights == "imagenet":
            raise ValueError(f"`weights` must be none or a file for {self.backbone}, which has no ImageNet weights")
        if not self.from_scratch and self.blocks != BlocksConfig():
            names = " or ".join(FROM_SCRATCH)
            raise ValueError(f"`blocks` is for {names} alone; {self.backbone} has blocks of its own: set `backbone` too")
        return self


class CacheConfig(Section):
    """What the frozen part of the network makes of each image, kept by content instead of made anew in each epoch."""

    mode: Literal["auto", "activations", "features", "off"] = Field(
        "auto",
        description="activations: for both phases; features: pooled, for the head; off: images are augmented afresh each epoch;"
        " auto: as much as the budget allows",
    )
    views: int = Field(2, ge=1, le=100, description="augmented views of each training image, the plain one included")
    dtype: Literal["float16", "float32"] = "float16"
    budget_gib: float = Field(20.0, gt=0, description="of disk that `auto` may take for the activations of a run's images")


class ResourcesConfig(Section):
    """What a run may use of the machine."""

    precision: Precision = Field(
        "auto",
        description="of the layers' arithmetic in training; weights and exports are float32. auto: mixed_float16 where every"
        " GPU has units for it (compute capability 7 or more: TensorFlow's guide to mixed precision), else float32",
    )


class PhaseConfig(Section):
    """What both training phases have in common. A number of 0 switches its technique off; so are all by default.

    The rate, the patience and Adam are those of the usual recipe; what else helps depends on the images and on the network.
    """

    epochs: int = Field(10, ge=0, le=10_000)
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the highest of the phase; Adam 1e-3 is Keras's own default")
    schedule: Schedule = Field(
        "plateau",
        description="plateau: cut when the validation loss stands still (Keras's ReduceLROnPlateau); cosine: down to 0 at the"
        " phase's end (Loshchilov and Hutter, 2017); one_cycle: up for 30% of the steps and down to almost 0, as PyTorch's"
        " OneCycleLR (Smith, 2018), momentum left as it is. The last two reach their low rates only in a phase that runs to"
        " its end: `patience` may end it before",
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="in which the rate rises evenly from 0, as Keras's CosineDecay; any part of an epoch (Goyal: 5)"
    )
    patience: int = Field(4, ge=1, description="epochs without a better validation loss before the phase ends")
    plateau_patience: int = Field(2, ge=1, description="epochs without a better validation loss before the rate is cut")
    plateau_factor: float = Field(0.3, gt=0, lt=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float | None = Field(
        None, ge=0, lt=1, description="of sgd, Nesterov's (Sutskever et al., 2013); default .9 (He et al., 2016)"
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="per step and times the rate, apart from the gradient, never of biases and norms; default .004 with adamw"
        " (Keras's default), else 0",
    )
    clip_norm: float = Field(0.0, ge=0, description="largest norm of all gradients together (Pascanu et al., 2013; ViT: 1)")
    ema: float = Field(
        0.0, ge=0, lt=1, description="share of the old in each step's moving average of the weights (Keras's default: .99)"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread evenly (Szegedy et al., 2016: .1)")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: losses weigh images / (classes * images of the class), as scikit-learn's"
    )

    @property
    def used_momentum(self) -> float:
        """Of sgd."""
        return 0.9 if self.momentum is None else self.momentum

    @property
    def used_weight_decay(self) -> float:
        """0 where there is none."""
        if self.weight_decay is None:
            return 0.004 if self.optimizer == "adamw" else 0.0
        return self.weight_decay

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError(f"`momentum` is of `optimizer: sgd`; {self.optimizer} has its own: leave it out, or choose sgd")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("`weight_decay` is not of `optimizer: adam`; choose adamw, or leave it out")
        if self.optimizer == "adamw" and not self.used_weight_decay:
            raise ValueError("`optimizer: adamw` without `weight_decay` is adam; choose adam, or a decay above 0")
        if self.schedule != "plateau":
            defaults = {name: type(self).model_fields[name].default for name in ("plateau_patience", "plateau_factor")}
            if changed := [name for name, default in defaults.items() if getattr(self, name) != default]:
                raise ValueError(f"`{changed[0]}` is of `schedule: plateau`; the schedule is {self.schedule}: leave it out")
        if self.schedule == "one_cycle" and self.warmup_epochs:
            raise ValueError("`warmup_epochs` must be 0 with `schedule: one_cycle`, which warms up by itself")
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"`warmup_epochs` must be below `epochs` ({self.epochs}); received {self.warmup_epochs:g}")
        return self


class HeadConfig(PhaseConfig):
    """Phase 1: the head alone, on a frozen backbone. 0 epochs skip it."""


class FineTuneConfig(PhaseConfig):
    """Phase 2: the top `layers` layers of the backbone and the head, at a low rate. 0 epochs skip it.

    The only phase of a from-scratch model. Epochs, rate and schedule were chosen by benchmarks/defaults.py: five epochs of a
    cosine from 1e-3 beat ten at 1e-4 on three sets, in less time (docs/decisions/0016-defaults.md).
    """

    epochs: int = Field(5, ge=0, le=10_000)
    learning_rate: float = Field(1e-3, gt=0, le=10)
    schedule: Schedule = "cosine"
    layers: int | str = Field(
        20,
        description="what of the backbone learns: so many of its last layers, all from a block on (such as block6a), or all;"
        " a pretrained one's BatchNorm never does",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor on the rate from one layer with a kernel to the next one below it; the head's factor is 1"
        " (Howard and Ruder, 2018: 1/2.6 in a network of 4 layers; Clark et al., 2020, and BEiT: .65 to .9 per block)",
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _some_or_all(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or (isinstance(value, int) and value < 1):
            raise ValueError(f"must be a number of layers, at least 1, the name of a block, or all; received {value!r}")
        return value


class Recipe(Section):
    """One run, whole. `config.yaml` in a run folder is one of these with all defaults filled in.

    The defaults below are those of transfer learning; a from-scratch `model.backbone` brings those of `pipelines.defaults`.
    """

    name: str | None = Field(None, min_length=1, max_length=100, description="of the data set; default: the source's name")
    seed: int = Field(1, ge=0, lt=2**32)
    image_size: int = Field(160, ge=32, le=1024, description="side of the square that images are resized to, in px")
    resize: Literal["stretch", "crop"] = Field(
        "crop",
        description="crop the largest centred square out first, or stretch to the square as Keras does (benchmarks/resize.py)",
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Keras's default")
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="each training image once per epoch, as Keras does, or each class equally often",
    )
    max_bad_fraction: float = Field(0.05, ge=0, le=1, description="of the files: more unreadable ones stop the run")
    checkpoint_every_steps: int = Field(
        200, ge=1, description="of training, besides the end of each epoch: about a minute of work on two cores"
    )
    max_pixels: int = Field(89_478_485, ge=1, description="per image; Pillow's limit against decompression bombs")
    split: SplitConfig = SplitConfig()
    tfds: TfdsConfig = TfdsConfig()
    store: StoreConfig = StoreConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    cache: CacheConfig = CacheConfig()
    head: HeadConfig = HeadConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _cacheable(self) -> Self:
        if self.cache.mode in ("activations", "features") and (reason := self.augment.uncacheable):
            raise ValueError(f"`cache.mode: {self.cache.mode}` can't be had with {reason}; use `cache.mode: auto` or `off`")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_from_scratch(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        written = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value for key, value in data.items()
        }
        return fill_from_scratch(written)

    @model_validator(mode="after")
    def _train_in_phases_that_the_model_has(self) -> Self:
        name, head = self.model.backbone, self.head.epochs
        if self.model.from_scratch and head:
            raise ValueError(
                f"`head.epochs` must be 0 for {name}, all of which learns in phase 2 (`fine_tune`); received {head}"
            )
        if self.model.from_scratch and not self.fine_tune.epochs:
            raise ValueError(f"`fine_tune.epochs` must be at least 1 for {name}, which learns in that phase alone; received 0")
        if not self.model.from_scratch and not head:
            raise ValueError(f"`head.epochs` must be at least 1 for {name}, whose head must learn first; received 0")
        return self

    @model_validator(mode="after")
    def _balances_once(self) -> Self:
        for phase in ("head", "fine_tune"):
            if self.sampling == "balanced" and getattr(self, phase).class_weights == "balanced":
                raise ValueError(
                    f"`sampling: balanced` and `{phase}.class_weights: balanced` both make up for rare classes; choose one"
                )
        return self
