"""What is computed: a frozen configuration for each rule, SimOTA's and the task-aligned one's."""

from .fields import MAX_TOPK, SCORES, UNION_RULES, Config, nearest, suggestion
from .simota import (
    CLS_CLASSES,
    CLS_COSTS,
    CONFLICTS,
    FIELDS,
    IOU_COSTS,
    K_POOLS,
    PRESETS,
    REGIONS,
    SimOTAConfig,
)
from .task_aligned import OVERLAPS, POOLS, TAL_CONFLICTS, TaskAlignedConfig

RULES: dict[str, type[Config]] = {config.rule: config for config in (SimOTAConfig, TaskAlignedConfig)}
"""The configuration of each rule, by the rule's name."""

__all__ = [
    "CLS_CLASSES",
    "CLS_COSTS",
    "CONFLICTS",
    "FIELDS",
    "IOU_COSTS",
    "K_POOLS",
    "MAX_TOPK",
    "OVERLAPS",
    "POOLS",
    "PRESETS",
    "REGIONS",
    "RULES",
    "SCORES",
    "TAL_CONFLICTS",
    "UNION_RULES",
    "Config",
    "SimOTAConfig",
    "TaskAlignedConfig",
    "nearest",
    "suggestion",
]
