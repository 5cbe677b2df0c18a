"""The part of a configuration that kernels are compiled for."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from ..config import SimOTAConfig
from .constants import fingerprint


@dataclass(frozen=True)
class Rule:
    """The fields of :class:`SimOTAConfig` that decide cost and pool, passed to kernels as one ``constexpr``.

    Those that only the matching reads are left out, so that changing them compiles nothing. Triton's cache on
    disk tells rules apart by this class's repr. It therefore has to show every value that is compiled in, and
    also those that follow from others, since binaries outlive a release that derives them in another way. (A
    configuration's own repr names its preset instead.) Kernels read fields as ``RULE.value.penalty``:
    ``value`` unwraps a ``constexpr``, and is the rule itself where Triton's interpreter passes it unwrapped.

    Attributes:
        penalized: Pairs outside a region of their own gt pay the penalty.
        centered: There is a centre prior.
        distance_counts: The centre prior grows with the distance.
        by_distance: Whether ``select`` ranks tiles by distance alone, rather than by all that is known of
            them. That decides nearly as well: of 134 to 336 tiles it visits one to two more in simulated
            scenes.
        joint: Class scores are joined with objectness.
        planes: Planes of the streaming kernels' slots, see ``constants.BACKGROUND``: a box, the background,
            and objectness where it is joined.
        clamped: Whether probabilities are clamped.
        gt_class_only: The class term is that of the gt's class, which may not be finite in some pairs of a
            prior.
        constants: See :func:`constants.fingerprint`.
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

    # what follows from the fields above, as kernels branch on it (Triton 3.3 does not compare fields), and
    # their constants

    penalized: bool
    centered: bool
    distance_counts: bool
    by_distance: bool
    joint: bool
    planes: int
    clamped: bool
    gt_class_only: bool
    constants: str

    @property
    def value(self) -> Rule:
        """Itself."""
        return self

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Kept, because Triton asks for it in every launch."""
        return hash(repr(self))

    @classmethod
    @functools.cache
    def of(cls, config: SimOTAConfig) -> Rule:
        """The rule of a configuration."""
        penalized = config.penalty > 0 and config.eligible != "all"
        centered = config.center_weight > 0
        distance_counts = centered and config.center_base > 1
        all_classes, joint = config.cls_classes == "all", config.score == "joint"
        return cls(
            candidate=config.candidate,
            eligible=config.eligible,
            center_radius=config.center_radius,
            penalty=config.penalty,
            own_pairs_only=config.own_pairs_only,
            score=config.score,
            cls_cost=config.cls_cost,
            all_classes=all_classes,
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
            penalized=penalized,
            centered=centered,
            distance_counts=distance_counts,
            by_distance=distance_counts and not penalized,
            joint=joint,
            planes=6 if joint else 5,
            clamped=config.prob_clamp > 0,
            gt_class_only=not all_classes,
            constants=fingerprint(),
        )
