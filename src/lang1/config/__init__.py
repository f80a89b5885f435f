"""The typed run configuration: frozen dataclasses, YAML recipes that name only what they change, dotted overrides.

One dataclass a stage, in the order in which the data flow; units stand in the line under each field. pydantic
validates (docs/decisions/0001-configuration.md): every error at once, each with the nearest known key.
"""

from lang1.config.audit import CHECKS, AuditConfig
from lang1.config.benchmark import ApiConfig, Baseline, EvaluateConfig, ReportConfig
from lang1.config.checks import TASK_IDS, TaskId
from lang1.config.data import (
    CleanConfig,
    DuplicatesConfig,
    ExtractConfig,
    ProfileConfig,
    SimulateConfig,
    TokenizeConfig,
)
from lang1.config.loading import RunConfig, as_yaml, dump, dump_yaml, load_config
from lang1.config.monitoring import EvaluationConfig, GenerationConfig, MonitorConfig, SinksConfig, SpikeConfig
from lang1.config.others import OtherModel
from lang1.config.own_task import OwnTask, read_own_task, read_own_tasks
from lang1.config.tasks import TasksConfig, Window, WindowsConfig
from lang1.config.training import (
    EncoderPreset,
    FinetuneConfig,
    LoraConfig,
    OptimizerConfig,
    Preset,
    PretrainConfig,
    ShapeOverrides,
    SweepConfig,
)

__all__ = [
    "CHECKS",
    "TASK_IDS",
    "ApiConfig",
    "AuditConfig",
    "Baseline",
    "CleanConfig",
    "DuplicatesConfig",
    "EncoderPreset",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "GenerationConfig",
    "LoraConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "OtherModel",
    "OwnTask",
    "Preset",
    "PretrainConfig",
    "ProfileConfig",
    "ReportConfig",
    "RunConfig",
    "ShapeOverrides",
    "SimulateConfig",
    "SinksConfig",
    "SpikeConfig",
    "SweepConfig",
    "TaskId",
    "TasksConfig",
    "TokenizeConfig",
    "Window",
    "WindowsConfig",
    "as_yaml",
    "dump",
    "dump_yaml",
    "load_config",
    "read_own_task",
    "read_own_tasks",
]
