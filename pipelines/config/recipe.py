"""A recipe, whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from pipelines.config.gate import GateConfig
from pipelines.config.images import AugmentConfig, StoreConfig
from pipelines.config.models import ModelConfig
from pipelines.config.registry import RegistryConfig
from pipelines.config.retrain import RetrainConfig
from pipelines.config.section import Section
from pipelines.config.sources import SplitConfig, TfdsConfig
from pipelines.config.training import CacheConfig, FineTuneConfig, HeadConfig, ResourcesConfig
from pipelines.defaults import fill_from_scratch


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
    gate: GateConfig = GateConfig()
    retrain: RetrainConfig = RetrainConfig()
    registry: RegistryConfig = RegistryConfig()

    @model_validator(mode="after")
    def _cacheable(self) -> Self:
        if self.cache.mode in ("activations", "features") and (reason := self.augment.uncacheable):
            raise ValueError(f"`cache.mode: {self.cache.mode}` can't be had with {reason}; use `cache.mode: auto` or `off`")
        if self.cache.mode in ("activations", "features") and self.model.from_scratch:
            raise ValueError(
                f"`cache.mode: {self.cache.mode}` can't be had with {self.model.backbone}, all of which learns;"
                " use `auto` or `off`"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_scratch(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        written = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Section) else value for key, value in data.items()
        }
        recipe = handler(fill_from_scratch(written))
        recipe.model_fields_set.intersection_update(written)  # what was filled in was not set by anybody
        return recipe

    @model_validator(mode="after")
    def _train_in_phases_that_the_model_has(self) -> Self:
        name, head = self.model.backbone, self.head.epochs
        if self.model.from_scratch and head:
            raise ValueError(
                f"`head.epochs` must be 0 for {name}, all of which learns in phase 2 (`fine_tune`); received {head}"
            )
        if self.model.from_scratch and not self.fine_tune.epochs:
            raise ValueError(f"`fine_tune.epochs` must be at least 1 for {name}, which learns in that phase alone; received 0")
        if self.model.from_scratch and self.fine_tune.layers != "all":
            raise ValueError(
                f"`fine_tune.layers` must be all for {name}, whose lower layers would stay random;"
                f" received {self.fine_tune.layers!r}"
            )
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

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> Self:
        devices = self.resources.devices
        if self.batch_size % devices:
            raise ValueError(
                f"`batch_size` must be a multiple of `resources.devices` ({devices}), which share each batch out;"
                f" received {self.batch_size}"
            )
        if devices > 1 and self.augment.where == "model":
            raise ValueError(
                "`augment.where: model` can't be had with several `resources.devices`, which would all draw the same;"
                " use `augment.where: dataset`"
            )
        return self
