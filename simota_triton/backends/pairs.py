"""Lists of (gt, prior) pairs and their costs: what the pruning backend asks for, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .. import terms
from ..config import SimOTAConfig
from ..inputs import Problem
from ..reference import usable_priors

BLOCK_PAIRS = 1 << 18
"""(gt, candidate) pairs formed at once: 1 MB a tensor, which stays in a core's cache."""

_SAFE = 1e18
"""Coordinates below this cannot overflow an area in float32."""


@dataclass(frozen=True)
class Gts:
    """The real gts of the batch, image after image.

    Attributes:
        boxes: [N, 4].
        labels: [N].
        centers: [N, 2].
        image: [N].
        slot: [N], index within the image.
        packed: [N], row in the packed ground truth.
        starts: Rows of image b are starts[b] to starts[b + 1].
    """

    boxes: Tensor
    labels: Tensor
    centers: Tensor
    image: Tensor
    slot: Tensor
    packed: Tensor
    starts: list[int]

    @staticmethod
    def of(problem: Problem) -> Gts:
        """The gts of a problem without its padding."""
        gts = problem.gts
        image = gts.image()
        rows = torch.arange(image.shape[0], device=image.device) if gts.mask is None else gts.mask.nonzero().squeeze(1)
        image = image[rows]
        counts = torch.bincount(image, minlength=problem.shape[0])
        starts = [0, *counts.cumsum(0).tolist()]
        return Gts(gts.boxes[rows], gts.labels[rows], gts.centers[rows], image, rows - gts.offsets[image], rows, starts)


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


@dataclass(frozen=True)
class Candidates:
    """The priors that the gts of one image compare.

    Attributes:
        index: [n], ascending.
        boxes: [n, 4] float32, each column contiguous.
        priors: [n, 4], each column contiguous.
        selectable: [n] bool, the others only count for ``dynamic_k``; None for all.
    """

    index: Tensor
    boxes: Tensor
    priors: Tensor
    selectable: Tensor | None


class Costs:
    """Candidates, bounds and costs of a problem; remembers the class sums of the priors it was asked about."""

    def __init__(self, problem: Problem, config: SimOTAConfig, gts: Gts) -> None:
        self.problem, self.config, self.gts = problem, config, gts
        self.all_classes = config.cls_classes == "all"
        self.has_penalty = config.penalty > 0 and config.eligible != "all"
        self.finite = _is_finite(problem)
        usable = None if self.finite and problem.candidate_mask is None else _usable(problem, self.all_classes)
        self.candidates = [self._candidates(b, rows, usable) for b, rows in enumerate(pairwise(gts.starts))]
        self._class_sum = torch.full((problem.shape[0] * problem.shape[1],), torch.nan, device=gts.boxes.device)

    def _candidates(self, image: int, rows: tuple[int, int], usable: Tensor | None) -> Candidates:
        priors = self.problem.priors
        mask = torch.zeros(priors.shape[0], dtype=torch.bool, device=priors.device)
        for part in blocks(*rows, priors.shape[0]):
            mask |= self.in_region(priors, torch.arange(part.start, part.stop)[:, None], self.config.candidate).any(0)
        exists = usable[image] if usable is not None else None
        selectable = mask if exists is None else mask & exists
        keep = None
        if self.config.k_pool == "all":
            index = torch.arange(priors.shape[0], device=priors.device) if exists is None else exists.nonzero().squeeze(1)
            keep = selectable[index]
        else:
            index = selectable.nonzero().squeeze(1)
        boxes = self.problem.pred_boxes[image, index].float()
        return Candidates(index, boxes.t().contiguous().t(), priors[index].t().contiguous().t(), keep)

    def flat(self, row: Tensor, prior: Tensor) -> Tensor:
        """Index of a pair's prior in the batch."""
        return self.gts.image[row] * self.problem.shape[1] + prior

    def in_region(self, priors: Tensor, rows: Tensor, region: str) -> Tensor:
        """Region test of priors [..., 4] and gts ``rows`` of a shape that broadcasts against [...]."""
        return terms.in_region(priors, self.gts.boxes[rows], self.gts.centers[rows], region, self.config.center_radius)

    def iou(self, image: int, rows: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """IoU of gts ``rows`` [g] and (some of) an image's candidates, [g, n]."""
        return terms.pair_iou(self.candidates[image].boxes[which], self.gts.boxes[rows, None], self.config)

    def exists(self, image: int, rows: Tensor, which: Tensor | slice = slice(None)) -> Tensor | None:
        """Which of these pairs take part, [g, n]; None for all."""
        candidates = self.candidates[image]
        mask = self.in_region(candidates.priors[which], rows[:, None], self.config.candidate) if self.config.own_pairs_only else None
        if not self.finite and not self.all_classes:
            image_logits = torch.cat([level[image] for level in self.problem.cls_logits.levels])
            own = image_logits[candidates.index[which]].t()[self.gts.labels[rows]].isfinite()
            mask = own if mask is None else mask & own
        return mask

    def bound(self, iou: Tensor, priors: Tensor, rows: Tensor, *, center: bool) -> Tensor:
        """Lower bound of the cost that knows no class score, broadcast as :meth:`in_region`.

        The class term is left out (it is >= 0) and 1 - IoU stands for 1 - GIoU (GIoU <= IoU); ``center`` adds the centre
        prior. Every other operation is the cost's own, so that rounding keeps the order up to an ulp.
        """
        config = self.config
        iou_term = -torch.log(iou + config.log_eps) if config.iou_cost == "log" else 1 - iou
        center_term = terms.center_cost(priors, self.gts.centers[rows], config) if center and config.center_weight else None
        outside = ~self.in_region(priors, rows, config.eligible) if self.has_penalty else None
        return terms.pair_cost(torch.zeros_like(iou), iou_term, center_term, outside, config)

    def cost(self, row: Tensor, prior: Tensor, iou: Tensor, *, own_class_only: bool = False) -> Tensor:
        """The cost of pairs, [n]; with ``own_class_only`` a lower bound that leaves the other classes' terms out."""
        problem, config, gts = self.problem, self.config, self.gts
        image, priors = gts.image[row], problem.priors[prior]
        objectness = None if problem.obj_logits is None else problem.obj_logits.at(image, prior, torch.zeros_like(prior))
        scores = terms.class_scores(problem.cls_logits.at(image, prior, gts.labels[row]), objectness, config)
        cls = terms.class_cost(scores, iou, config)
        if self.all_classes and not own_class_only:
            cls = terms.swap_class(self.class_sum(self.flat(row, prior)), terms.background_cost(scores, config), cls)
        iou_term = terms.iou_cost(problem.pred_boxes[image, prior].float(), gts.boxes[row], iou, config)
        center = terms.center_cost(priors, gts.centers[row], config) if config.center_weight else None
        outside = ~self.in_region(priors, row, config.eligible) if self.has_penalty else None
        return terms.pair_cost(cls, iou_term, center, outside, config)

    def class_sum(self, flat: Tensor) -> Tensor:
        """Background class cost of priors of the batch, summed over classes, [n]."""
        missing = flat[self._class_sum[flat].isnan()].unique()
        problem = self.problem
        for part in missing.split(max(1, BLOCK_PAIRS // problem.shape[2])):
            image, prior = part // problem.shape[1], part % problem.shape[1]
            objectness = None if problem.obj_logits is None else problem.obj_logits.rows(image, prior)
            scores = terms.class_scores(problem.cls_logits.rows(image, prior), objectness, self.config)
            self._class_sum[part] = terms.background_cost(scores, self.config).sum(1)
        return self._class_sum[flat]


def blocks(start: int, stop: int, width: int) -> Iterator[slice]:
    """Runs of rows of which each forms about ``BLOCK_PAIRS`` pairs with ``width`` others."""
    step = max(1, BLOCK_PAIRS // max(width, 1))
    return (slice(i, min(i + step, stop)) for i in range(start, stop, step))


def _is_finite(problem: Problem) -> bool:
    """Whether every prediction is certainly finite: one pass over the values instead of a mask."""
    scores = [*problem.cls_logits.levels, *(problem.obj_logits.levels if problem.obj_logits is not None else ())]
    if problem.pred_boxes.numel() == 0:
        return True
    lowest, highest = problem.pred_boxes.aminmax()
    in_range = bool((lowest > -_SAFE) & (highest < _SAFE)) and bool(problem.priors.isfinite().all())
    return in_range and all(bool(level.sum(dtype=torch.float32).isfinite()) for level in scores)


def _usable(problem: Problem, all_classes: bool) -> Tensor:
    """[B, P] bool: priors that take part; where all classes count, all of their logits are finite."""
    usable = usable_priors(problem)
    if all_classes:
        usable = usable & torch.cat([level.isfinite().all(2) for level in problem.cls_logits.levels], dim=1)
    return usable
