"""The part of a configuration that kernels are compiled for."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from ..config import SimOTAConfig


@dataclass(frozen=True)
class Rule:
    """The fields of :class:`SimOTAConfig` that decide cost and pool, passed to kernels as one ``constexpr``.

    Those that only the matching reads are left out, so that changing them compiles nothing. Triton's cache on disk tells
    rules apart by this class's repr, which therefore has to show every value: a configuration's own repr names its preset.
    Kernels read fields as ``RULE.value.penalty``: ``value`` unwraps a ``constexpr``, and is the rule itself where Triton's
    interpreter passes it unwrapped.
    """

    candidate: str
    eligible: str
    center_radius: float
    penalty: float
    own_pairs_only: bool
    score: str
    cls_cost: str
    all_classes: bool
    cls_weight: float
    prob_clamp: float
    iou_cost: str
    iou_weight: float
    log_eps: float
    union_rule: str
    union_eps: float
    center_weight: float
    log2_center_base: float
    center_offset: float
    pool_all: bool

    @property
    def value(self) -> Rule:
        """Itself."""
        return self

    # what kernels branch on, as plain booleans: Triton 3.3 does not compare fields

    @property
    def penalized(self) -> bool:
        """Pairs outside a region of their own gt pay the penalty."""
        return self.penalty > 0 and self.eligible != "all"

    @property
    def centered(self) -> bool:
        """There is a centre prior."""
        return self.center_weight > 0

    @property
    def distance_counts(self) -> bool:
        """The centre prior grows with the distance."""
        return self.centered and self.log2_center_base > 0

    @property
    def by_distance(self) -> bool:
        """Whether the distance alone tells which tiles ``select`` visits: it decides nearly as well as all that is known of a tile.
        Of 134 to 336 tiles it visits one to two more in simulated scenes.
        """
        return self.distance_counts and not self.penalized

    @property
    def joint(self) -> bool:
        """Class scores are joined with objectness."""
        return self.score == "joint"

    @property
    def planes(self) -> int:
        """Float32 values a slot of the streaming kernels: a box, the background, and objectness where it is joined."""
        return 6 if self.joint else 5

    @property
    def clamped(self) -> bool:
        """Whether probabilities are clamped."""
        return self.prob_clamp > 0

    @property
    def gt_class_only(self) -> bool:
        """The class term is that of the gt's class, which may not be finite in some pairs of a prior."""
        return not self.all_classes

    @classmethod
    @functools.cache
    def of(cls, config: SimOTAConfig) -> Rule:
        """The rule of a configuration."""
        return cls(
            candidate=config.candidate,
            eligible=config.eligible,
            center_radius=config.center_radius,
            penalty=config.penalty,
            own_pairs_only=config.own_pairs_only,
            score=config.score,
            cls_cost=config.cls_cost,
            all_classes=config.cls_classes == "all",
            cls_weight=config.cls_weight,
            prob_clamp=config.prob_clamp,
            iou_cost=config.iou_cost,
            iou_weight=config.iou_weight,
            log_eps=config.log_eps,
            union_rule=config.union_rule,
            union_eps=config.union_eps,
            center_weight=config.center_weight,
            log2_center_base=math.log2(config.center_base),
            center_offset=config.center_offset,
            pool_all=config.k_pool == "all",
        )
