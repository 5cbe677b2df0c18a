"""Lists of (gt, prior) pairs, their bounds and their costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import terms
from ..config import SimOTAConfig
from ..inputs import Problem
from .candidates import Gts, find_candidates, usable_mask

BLOCK_SCORES = 1 << 16
"""Scores of whole priors read at once; their class costs take five tensors of this size."""

BEHIND = 2.0
"""Taken from the IoU of a pair that costs at least ``Costs.floor``, to rank it behind every pair that may cost less."""

NEAR_COST = 8.0
"""Priors whose centre term alone costs this much rank behind: few gts have a k-th cost above it."""


@dataclass(frozen=True)
class Pairs:
    """Some pairs: row among the real gts, prior within the image, IoU and cost, [n] each."""

    row: Tensor
    prior: Tensor
    iou: Tensor
    cost: Tensor

    def __getitem__(self, which: Tensor) -> Pairs:
        return Pairs(self.row[which], self.prior[which], self.iou[which], self.cost[which])

    @staticmethod
    def concatenate(parts: list[Pairs]) -> Pairs:
        """One after the other."""
        columns = zip(*((p.row, p.prior, p.iou, p.cost) for p in parts), strict=True)
        return Pairs(*(torch.cat(column) for column in columns))


class PairTerms(NamedTuple):
    """Unweighted terms of pairs, [n] each: the gt's class, what it replaces in the class sum, IoU, centre, penalty."""

    own: Tensor
    background: Tensor
    iou: Tensor
    center: Tensor | None
    outside: Tensor | None

    def select(self, which: Tensor) -> PairTerms:
        """Some of the pairs."""
        return PairTerms(*(None if t is None else t[which] for t in self))  # type: ignore[arg-type]


class Costs:
    """Candidates, bounds and costs of a problem.

    A first attempt (not ``careful``) takes all scores to be finite and looks only at those it reads: ``clean`` tells
    whether they were. A prior that was never read cannot matter, so a clean attempt stands; another is made carefully,
    with masks over all scores, which take longer than everything else.
    """

    def __init__(self, problem: Problem, config: SimOTAConfig, gts: Gts, *, careful: bool) -> None:
        self.problem, self.config, self.gts = problem, config, gts
        self.all_classes = config.cls_classes == "all"
        self.has_penalty = config.penalty > 0 and config.eligible != "all"
        longest = -math.log(config.log_eps) if config.iou_cost == "log" else 1.0
        self.penalty_ranks = self.has_penalty and config.penalty > config.iou_weight * longest
        self.near = _near(config)
        self.floor = min(config.penalty if self.penalty_ranks else math.inf, NEAR_COST if self.near else math.inf)
        self.careful = careful
        self._read: list[Tensor] = []
        usable = usable_mask(problem, self.all_classes) if careful or not _boxes_are_finite(problem) else None
        self.candidates = find_candidates(problem, config, gts, usable)
        self.rows_at_once = max(1, BLOCK_SCORES // problem.shape[2])

    def clean(self) -> bool:
        """Whether every score that was read is finite."""
        return self.careful or bool(torch.stack(self._read).isfinite().all())

    def flat(self, row: Tensor, prior: Tensor) -> Tensor:
        """Index of a pair's prior in the batch."""
        return self.gts.image[row] * self.problem.shape[1] + prior

    def in_region(self, priors: Tensor, rows: Tensor, region: str) -> Tensor:
        """Region test of priors [..., 4] and gts ``rows`` of a shape that broadcasts against [...]."""
        return terms.in_region(priors, self.gts.boxes[rows], self.gts.centers[rows], region, self.config.center_radius)

    def iou(self, row: Tensor, prior: Tensor) -> Tensor:
        """IoU of pairs, [n]."""
        boxes = self.problem.pred_boxes[self.gts.image[row], prior].float()
        return terms.pair_iou(boxes, self.gts.boxes[row], self.config)

    def exists(self, rows: Tensor, prior: Tensor) -> Tensor | None:
        """Whether pairs (of one shape when broadcast) take part at all; None for all."""
        mask = None
        if self.config.own_pairs_only:
            mask = self.in_region(self.problem.priors[prior], rows, self.config.candidate)
        if self.careful and not self.all_classes:
            rows, prior = torch.broadcast_tensors(rows, prior)
            own = self._own_logits(rows.flatten(), prior.flatten()).isfinite().view(rows.shape)
            mask = own if mask is None else mask & own
        return mask

    # A dense block is ranked and cut by a bound that reads no scores: the class term is >= 0 and left out, 1 - IoU stands
    # for 1 - GIoU (GIoU <= IoU). What is left falls with the IoU, so the rank is the IoU itself, less ``BEHIND`` for pairs
    # that cost at least ``floor``: those that pay a penalty above every IoU cost, and those far from the gt's centre.

    def iou_block(self, image: int, rows: Tensor, out: Tensor) -> None:
        """IoUs of gts ``rows`` [g] and an image's candidates, into ``out`` [g, n]; -inf where a pair does not exist."""
        terms.pair_iou(self.candidates[image].boxes, self.gts.boxes[rows, None], self.config, out=out)
        exists = self.exists(rows[:, None], self.candidates[image].index)
        if exists is not None:
            out.masked_fill_(~exists, -torch.inf)

    def rank_block(self, image: int, rows: Tensor, iou: Tensor) -> None:
        """Turn a block's IoUs into ranks, in place."""
        candidates = self.candidates[image]
        priors = self.problem.priors.index_select(0, candidates.index)
        if self.near:
            offset_x, offset_y = (priors[:, i].contiguous() - self.gts.centers[rows, i, None] for i in (0, 1))
            scale = (1 / (self.near * priors[:, 2])).square_()
            # arithmetic in place of a comparison, which takes five times as long
            behind = offset_x.square_().add_(offset_y.square_()).mul_(scale).floor_().clamp_(max=1)
        if self.penalty_ranks:
            outside = (~self.in_region(priors, rows[:, None], self.config.eligible)).float()
            behind = torch.maximum(behind, outside) if self.near else outside
        if self.near or self.penalty_ranks:
            iou.sub_(behind, alpha=BEHIND)
        if candidates.selectable is not None:
            iou.masked_fill_(~candidates.selectable, -torch.inf)

    def lowest_rank(self, limit: Tensor) -> Tensor:
        """The smallest rank that a pair with a cost of at most ``limit`` can have."""
        paid = (limit >= self.floor) & (self.floor < torch.inf)
        iou = self.lowest_iou(torch.where(paid, limit - self.floor, limit))
        return torch.where(paid, iou - BEHIND, iou)

    def lowest_iou(self, limit: Tensor) -> Tensor:
        """The smallest IoU that a pair with a cost of at most ``limit`` can have, and a few ulp less."""
        if not self.config.iou_weight:
            return torch.zeros_like(limit)
        worth = limit / self.config.iou_weight
        iou = torch.exp(-worth) - self.config.log_eps if self.config.iou_cost == "log" else 1 - worth
        return (iou - 1e-6).clamp(min=0)

    def terms(self, row: Tensor, prior: Tensor, iou: Tensor) -> PairTerms:
        """The terms of pairs, [n] each, all but the sum over classes."""
        problem, config = self.problem, self.config
        image, priors = self.gts.image[row], problem.priors[prior]
        objectness = None if problem.obj_logits is None else problem.obj_logits.at(image, prior, torch.zeros_like(prior))
        scores = terms.class_scores(self._own_logits(row, prior), objectness, config)
        boxes = problem.pred_boxes[image, prior].float() if config.iou_cost == "giou" else iou
        return PairTerms(
            own=terms.class_cost(scores, iou, config),
            background=terms.background_cost(scores, config) if self.all_classes else scores,
            iou=terms.iou_cost(boxes, self.gts.boxes[row], iou, config),
            center=terms.center_cost(priors, self.gts.centers[row], config) if config.center_weight else None,
            outside=~self.in_region(priors, row, config.eligible) if self.has_penalty else None,
        )

    def lower(self, t: PairTerms) -> Tensor:
        """The cost without the other classes' terms: a lower bound where those count, else the cost."""
        return terms.pair_cost(t.own, t.iou, t.center, t.outside, self.config)

    def cost(self, t: PairTerms, row: Tensor, prior: Tensor, sums: ClassSums) -> Tensor:
        """The cost of pairs, [n]."""
        if not self.all_classes:
            return self.lower(t)
        own = terms.swap_class(sums.of(self.flat(row, prior)), t.background, t.own)
        return terms.pair_cost(own, t.iou, t.center, t.outside, self.config)

    def read(self, row: Tensor, prior: Tensor) -> None:
        """Look at the scores of pairs that count for ``dynamic_k``, whether or not they are costed."""
        if self.careful:
            return
        if not self.all_classes:
            self._own_logits(row, prior)
            return
        for part in self.flat(row, prior).unique().split(self.rows_at_once):
            self.scores(part)

    def _own_logits(self, row: Tensor, prior: Tensor) -> Tensor:
        """Logits of the gts' own classes, [n]."""
        logits = self.problem.cls_logits.at(self.gts.image[row], prior, self.gts.labels[row])
        self._read.append(logits.sum(dtype=torch.float32))
        return logits

    def scores(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Class and objectness logits of priors of the batch, [n, C] and [n, 1]."""
        problem = self.problem
        image, prior = flat // problem.shape[1], flat % problem.shape[1]
        logits = problem.cls_logits.rows(image, prior)
        self._read.append(logits.sum(dtype=torch.float32))
        return logits, None if problem.obj_logits is None else problem.obj_logits.rows(image, prior)


class ClassSums:
    """Background class cost of priors, summed over classes; remembers those of a range of images."""

    def __init__(self, costs: Costs, first_image: int, last_image: int) -> None:
        num_priors = costs.problem.shape[1]
        self._costs, self._start = costs, first_image * num_priors
        self._known = torch.full(((last_image + 1 - first_image) * num_priors,), torch.nan, device=costs.gts.boxes.device)

    def of(self, flat: Tensor) -> Tensor:
        """The sums of priors of the batch, [n]."""
        costs, place = self._costs, flat - self._start
        for part in flat[self._known[place].isnan()].unique().split(costs.rows_at_once):
            logits, objectness = costs.scores(part)
            scores = terms.class_scores(logits, objectness, costs.config)
            self._known[part - self._start] = terms.background_cost(scores, costs.config).sum(1)
        return self._known[place]


def _boxes_are_finite(problem: Problem) -> bool:
    """Whether all priors certainly take part: boxes and their areas, objectness and priors are finite, none is masked out."""
    if problem.candidate_mask is not None:
        return False
    values = [
        problem.priors.sum(),
        *(() if problem.obj_logits is None else (v.sum(dtype=torch.float32) for v in problem.obj_logits.levels)),
    ]
    if problem.pred_boxes.numel():
        values += [extreme.float().square() for extreme in problem.pred_boxes.aminmax()]
    return bool(torch.stack(values).isfinite().all())


def _near(config: SimOTAConfig) -> float:
    """Distance from the gt's centre, in strides, where the centre term reaches ``NEAR_COST``; 0 where it says nothing."""
    if not config.center_weight or config.center_base == 1:
        return 0.0
    return max(0.0, config.center_offset + math.log(NEAR_COST / config.center_weight, config.center_base))
