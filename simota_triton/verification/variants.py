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
    REGIONS,
    SCORES,
    UNION_RULES,
    SimOTAConfig,
)
from .scenes import FAMILIES

PRESETS = SimOTAConfig.presets()

OVERRIDES: dict[str, tuple[Any, ...]] = {
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
}
"""What a variant of a preset may change. Every third scene runs under a variant with one to four changes."""


def config_of(seed: int) -> SimOTAConfig:
    """The configuration of a scene: a preset, or a variant of it."""
    turn = seed // len(FAMILIES)  # every family meets every preset
    preset = PRESETS[turn % len(PRESETS)]
    rng = random.Random(seed)
    while turn % 3 == 2:
        names = rng.sample(sorted(OVERRIDES), rng.randint(1, 4))
        try:
            return SimOTAConfig.from_preset(preset, **{name: rng.choice(OVERRIDES[name]) for name in names})
        except ValueError:  # two fields contradict each other
            continue
    return SimOTAConfig.from_preset(preset)
