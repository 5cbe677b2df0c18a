"""The part of a configuration that kernels are compiled for, a class for each rule."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeVar

from ..config import SimOTAConfig, TaskAlignedConfig
from .constants import fingerprint

SomeRule = TypeVar("SomeRule", bound="CompiledRule")


class CompiledRule:
    """What is passed to kernels as one ``constexpr``: a frozen dataclass of values.

    Triton's cache on disk tells rules apart by their repr. It therefore has to show every value that is
    compiled in, and also those that follow from others, since binaries outlive a release that derives them in
    another way. (A configuration's own repr names its preset instead.) Kernels read fields as
    ``RULE.value.penalty``: ``value`` unwraps a ``constexpr``, and is the rule itself where Triton's
    interpreter passes it unwrapped.

    Attributes:
        candidates: Whether a prior takes part only as a candidate, in a region of any gt of its image, and
            slots hold a background plane that says so.
        planes: Planes of the streaming kernels' slots, see ``constants.BACKGROUND``.
        pool_all: Whether priors count that are in no region.
        joint: Whether class scores are joined with objectness.
        constants: See :func:`constants.fingerprint`.
    """

    candidates: bool
    planes: int
    pool_all: bool
    joint: bool
    constants: str

    @property
    def value(self: SomeRule) -> SomeRule:
        """Itself."""
        return self

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Kept, because Triton asks for it in every launch."""
        return hash(repr(self))


@dataclass(frozen=True)
class Rule(CompiledRule):
    """The fields of :class:`SimOTAConfig` that decide cost and pool. Those that only the matching reads are
    left out, so that changing them compiles nothing.

    Attributes:
        penalized: Pairs outside a region of their own gt pay the penalty.
        centered: There is a centre prior.
        distance_counts: The centre prior grows with the distance.
        by_distance: Whether ``select`` ranks tiles by distance alone, rather than by all that is known of
            them. That decides nearly as well: of 134 to 336 tiles it visits one to two more in simulated
            scenes.
        clamped: Whether probabilities are clamped.
        gt_class_only: The class term is that of the gt's class, which may not be finite in some pairs of a
            prior.
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
    candidates: bool
    joint: bool
    planes: int
    clamped: bool
    gt_class_only: bool
    constants: str

    __hash__ = CompiledRule.__hash__

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
            candidates=True,
            joint=joint,
            planes=6 if joint else 5,
            clamped=config.prob_clamp > 0,
            gt_class_only=not all_classes,
            constants=fingerprint(),
        )


@dataclass(frozen=True)
class AlignedRule(CompiledRule):
    """The fields of :class:`TaskAlignedConfig` that kernels read. ``topk`` is an argument.

    Attributes:
        topk2: 0 where gts keep all of their priors.
        complete: The overlap is CIoU.
        enlarges: Short sides are enlarged.
        reaches: There is a ``max_reach``, which is 0 otherwise.
        compares_claims: Claims on a prior are compared as they are made, see ``stream.aligned.select``: where
            their winner is the owner ("matched"), or one may come from outside of the region.
    """

    alpha: float
    beta: float
    topk2: int
    overlap: str
    union_rule: str
    union_eps: float
    margin: float
    inclusive: bool
    min_side_below: float
    min_side_to: float
    max_reach: float
    pool_all: bool
    at_least_one: bool
    conflict: str
    norm_eps: float
    score: str

    # what follows from the fields above, as kernels branch on it, and their constants

    complete: bool
    enlarges: bool
    reaches: bool
    compares_claims: bool
    candidates: bool
    joint: bool
    planes: int
    constants: str

    __hash__ = CompiledRule.__hash__

    @classmethod
    @functools.cache
    def of(cls, config: TaskAlignedConfig) -> AlignedRule:
        """The rule of a configuration with boxes along the axes."""
        at_least_one = config.at_least_one
        return cls(
            alpha=float(config.alpha),
            beta=float(config.beta),
            topk2=config.topk2 or 0,
            overlap=config.overlap,
            union_rule=config.union_rule,
            union_eps=config.union_eps,
            margin=config.margin,
            inclusive=config.inclusive,
            min_side_below=config.min_side_below,
            min_side_to=config.min_side_to,
            max_reach=config.max_reach or 0.0,
            pool_all=config.pool == "all",
            at_least_one=at_least_one,
            conflict=config.conflict,
            norm_eps=config.norm_eps,
            score=config.score,
            complete=config.overlap == "ciou",
            enlarges=config.min_side_below > 0,
            reaches=config.max_reach is not None,
            compares_claims=config.conflict == "matched" or (at_least_one and config.conflict == "inside"),
            candidates=False,
            joint=False,
            planes=4,
            constants=fingerprint(),
        )
