"""What is computed: a frozen configuration for each rule, SimOTA's and the task-aligned one's."""

import dataclasses
import functools
import json

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


def config_key(config: Config) -> str:
    """A configuration as a string, which names its rule."""
    return json.dumps({"rule": config.rule, **dataclasses.asdict(config)})


@functools.cache
def config_of(key: str) -> Config:
    """The configuration of a string of :func:`config_key`; one without a rule's name is SimOTA's."""
    fields = json.loads(key)
    return RULES[fields.pop("rule", "simota")](**fields)


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
    "config_key",
    "config_of",
    "nearest",
    "suggestion",
]
