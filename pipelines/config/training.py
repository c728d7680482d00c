"""How the network is trained, and with what."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section

Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Schedule = Literal["plateau", "cosine", "one_cycle", "constant"]


class CacheConfig(Section):
    """What the frozen part of the network makes of each image, kept by content instead of made anew in each epoch."""

    mode: Literal["auto", "activations", "features", "off"] = Field(
        "auto",
        description="activations: for both phases; features: pooled, for the head; off: images are augmented afresh each epoch;"
        " auto: what saves the most seconds within the budget",
    )
    views: int = Field(2, ge=1, le=100, description="augmented views of each training image, the plain one included")
    dtype: Literal["float16", "float32"] = "float16"
    budget_gib: float = Field(20.0, gt=0, description="of disk that `auto` may take for the activations of a run's images")

    @field_validator("mode", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML 1.1 reads an unquoted off as false


class ResourcesConfig(Section):
    """What a run may use of the machine."""

    precision: Precision = Field(
        "auto",
        description="of the layers' arithmetic in training; weights and exports are float32. auto: mixed_float16 where every"
        " GPU has units for it (compute capability 7 or more: TensorFlow's guide to mixed precision), else float32",
    )
    devices: int = Field(
        1, ge=1, le=64, description="GPUs of one host that a run trains on, each on its share of every batch (MirroredStrategy)"
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
        if isinstance(value, str) and value.isdecimal():  # quoted in YAML
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or (isinstance(value, int) and value < 1):
            raise ValueError(f"must be a number of layers, at least 1, the name of a block, or all; received {value!r}")
        return value
