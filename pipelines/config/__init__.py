"""The schema of a recipe: everything that a run can be told, with its defaults. Imports no TensorFlow.

Each default names its source. A stage of the DAG is handed only the part that it reads, so that changing one value re-runs
just the stages that depend on it.
"""

from pipelines.config.gate import GateConfig
from pipelines.config.images import AugmentConfig, StoreConfig
from pipelines.config.models import BACKBONE_NAMES, BackboneName, BlocksConfig, ModelConfig
from pipelines.config.recipe import Recipe
from pipelines.config.registry import RegistryConfig
from pipelines.config.retrain import RetrainConfig
from pipelines.config.section import Section
from pipelines.config.sources import SPLITS, SplitConfig, TfdsConfig, TfdsSplits
from pipelines.config.training import CacheConfig, FineTuneConfig, HeadConfig, PhaseConfig, Precision, ResourcesConfig, Schedule

__all__ = [
    "BACKBONE_NAMES",
    "SPLITS",
    "AugmentConfig",
    "BackboneName",
    "BlocksConfig",
    "CacheConfig",
    "FineTuneConfig",
    "GateConfig",
    "HeadConfig",
    "ModelConfig",
    "PhaseConfig",
    "Precision",
    "Recipe",
    "RegistryConfig",
    "ResourcesConfig",
    "RetrainConfig",
    "Schedule",
    "Section",
    "SplitConfig",
    "StoreConfig",
    "TfdsConfig",
    "TfdsSplits",
]
