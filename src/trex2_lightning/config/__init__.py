"""The whole configuration as dataclasses: every field has one meaning, and code outside reads it.

UNKNOWN facts of the papers have reasoned defaults, listed in docs/deviations.md.
"""

from trex2_lightning.config.checks import ConfigError
from trex2_lightning.config.data import (
    AugmentConfig,
    DataConfig,
    ExemplarsConfig,
    NamelessConfig,
    NegativesConfig,
    SetConfig,
    ShapesConfig,
    SplitConfig,
)
from trex2_lightning.config.evaluation import EvalConfig, TaskConfig
from trex2_lightning.config.experiment import Config
from trex2_lightning.config.files import (
    experiment_file,
    for_benchmark,
    for_evaluation,
    from_dict,
    load,
    override,
    save,
    to_dict,
)
from trex2_lightning.config.loss import AlignmentConfig, CostConfig, DenoisingConfig, LossConfig
from trex2_lightning.config.migrations import migrate
from trex2_lightning.config.model import (
    AppearanceConfig,
    BackboneConfig,
    ModelConfig,
    TextConfig,
    TransformerConfig,
    VisualPromptConfig,
)
from trex2_lightning.config.training import (
    LoggingConfig,
    MemoryBankConfig,
    OptimConfig,
    Precision,
    RhythmConfig,
    TrainConfig,
)
from trex2_lightning.config.untrusted import check_harmless

__all__ = [
    "AlignmentConfig",
    "AppearanceConfig",
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "ConfigError",
    "CostConfig",
    "DataConfig",
    "DenoisingConfig",
    "EvalConfig",
    "ExemplarsConfig",
    "LoggingConfig",
    "LossConfig",
    "MemoryBankConfig",
    "ModelConfig",
    "NamelessConfig",
    "NegativesConfig",
    "OptimConfig",
    "Precision",
    "RhythmConfig",
    "SetConfig",
    "ShapesConfig",
    "SplitConfig",
    "TaskConfig",
    "TextConfig",
    "TrainConfig",
    "TransformerConfig",
    "VisualPromptConfig",
    "check_harmless",
    "experiment_file",
    "for_benchmark",
    "for_evaluation",
    "from_dict",
    "load",
    "migrate",
    "override",
    "save",
    "to_dict",
]
