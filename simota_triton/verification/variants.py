"""Which configuration a scene runs under: every preset, and variants of presets with fields changed."""

from __future__ import annotations

import random
from typing import Any

from ..config import (
    CLS_CLASSES,
    CLS_COSTS,
    CONFLICTS,
    IOU_COSTS,
    K_POOLS,
    POOLS,
    REGIONS,
    SCORES,
    TAL_CONFLICTS,
    UNION_RULES,
    SimOTAConfig,
    TaskAlignedConfig,
)
from ..config.task_aligned import PROBABILITIES
from .scenes import ALIGNED_FAMILIES, FAMILIES

CONFIGS: dict[str, Any] = {
    "simota": SimOTAConfig,
    "task_aligned": TaskAlignedConfig,
    "task_aligned_rotated": TaskAlignedConfig,
}
"""The configuration of each rule; one whose boxes may be rotated is two here, see ``Config.variety``."""

PRESETS: dict[str, tuple[str, ...]] = {
    rule: tuple(name for name in config.presets() if config.from_preset(name).variety == rule)
    for rule, config in CONFIGS.items()
}
"""The presets of each rule."""

SCENES = {rule: FAMILIES if config is SimOTAConfig else ALIGNED_FAMILIES for rule, config in CONFIGS.items()}
"""The families of scenes that each rule meets."""

OVERRIDES: dict[str, dict[str, tuple[Any, ...]]] = {
    "simota": {
        "candidate": REGIONS,
        "eligible": REGIONS,
        "center_radius": (0.5, 1.5, 4.0),
        "penalty": (0.0, 20.0, 12345.678),
        "own_pairs_only": (True, False),
        "score": SCORES,
        "cls_cost": CLS_COSTS,
        "cls_classes": CLS_CLASSES,
        "cls_weight": (0.0, 0.5, 2.0),
        "prob_clamp": (0.0, 1e-3),
        "iou_cost": IOU_COSTS,
        "iou_weight": (0.0, 1.0, 7.5),
        "log_eps": (1e-10, 1e-2),
        "union_rule": UNION_RULES,
        "center_weight": (0.0, 0.3, 2.0),
        "center_base": (1.0, 2.0, 10.0),
        "center_offset": (-1.0, 0.0, 5.0),
        "candidate_topk": (1, 2, 20, 32),
        "k_pool": K_POOLS,
        "k_scale": (0.5, 1.0),
        "conflict": CONFLICTS,
        "min_positives": (1, 3),
    },
    "task_aligned": {
        "alpha": (0.0, 0.5, 1.0, 3.3),
        "beta": (0.3, 1.0, 2.5, 6.0, 20.0),
        "topk": (1, 3, 20, 32),
        "topk2": (None, 1, 2, 5),
        "overlap": ("iou", "ciou"),
        "union_rule": UNION_RULES,
        "union_eps": (0.0, 1e-9, 1e-3),
        "margin": (0.0, 0.01, 2.0),
        "inclusive": (True, False),
        "min_side_below": (0.0, 8.0, 16.0),
        "min_side_to": (16.0, 40.0),
        "max_reach": (None, 1.5, 6.0),
        "pool": POOLS,
        "at_least_one": (True, False),
        "conflict": TAL_CONFLICTS,
        "norm_eps": (0.0, 1e-9, 1e-3),
        "score": PROBABILITIES,
    },
}
OVERRIDES["task_aligned_rotated"] = {
    name: values
    for name, values in OVERRIDES["task_aligned"].items()
    if name not in ("overlap", "union_rule", "max_reach", "pool")  # which rotated boxes have one value of
}
"""What a variant of a preset may change. Every third scene runs under a variant with one to four changes."""


def config_of(seed: int, rule: str = "simota") -> Any:
    """The configuration of a scene: a preset, or a variant of it."""
    config, presets, overrides = CONFIGS[rule], PRESETS[rule], OVERRIDES[rule]
    turn = seed // len(SCENES[rule])  # every family meets every preset
    preset = presets[turn % len(presets)]
    rng = random.Random(seed)
    while turn % 3 == 2:
        names = rng.sample(sorted(overrides), rng.randint(1, 4))
        try:
            return config.from_preset(preset, **{name: rng.choice(overrides[name]) for name in names})
        except ValueError:  # two fields contradict each other
            continue
    return config.from_preset(preset)
