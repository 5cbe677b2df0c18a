"""Small calls in plain PyTorch: image by image, on dense [G, n] matrices of the image's n candidates.

In a call with a handful of gts the pruning path spends its time on some four hundred operations, not on
arithmetic. Here an image takes about a hundred.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ... import terms
from ...boxes import box_area, intersection
from ...config import SimOTAConfig
from ...matching import count_k
from ...problem import Problem
from ..gts import Gts, take
from .candidates import mark_candidates
from .pairs import Pairs, PairTerms, loosened
from .priors import Priors

MOST_PAIRS = 20 * 8400
"""(gt, prior) pairs of a call up to which it is small."""

PAIRS_AN_IMAGE = 2 * 8400
"""Pairs that take as long as what an image takes whatever its gts."""

FEW_SCORES = 1 << 15
"""Class scores of an image that are summed sooner than it is found out which of them matter."""


def applies(problem: Problem, config: SimOTAConfig, gts: Gts) -> bool:
    """Whether a call is small, and of the kind that :func:`match` is written for."""
    images = sum(start < stop for start, stop in pairwise(gts.starts))
    pairs = gts.packed.shape[0] * problem.shape[1] + images * PAIRS_AN_IMAGE
    return (
        pairs <= MOST_PAIRS
        and config.k_pool == "candidates"
        and config.candidate != "all"
        and not config.min_positives
    )


def match(problem: Problem, config: SimOTAConfig, gts: Gts, claims: Tensor) -> tuple[Tensor, Pairs] | None:
    """dynamic_k of the real gts, and the pairs that are left once conflicts are resolved; counts ``claims``
    [B * P].

    None, and nothing counted, where a prior or a prediction of a candidate holds what is not finite.
    """
    batch, num_priors, _ = problem.shape
    priors = Priors.of(problem.priors)
    if not priors.usable:
        return None
    candidate = torch.empty((batch, num_priors), dtype=torch.float32, device=claims.device)
    mark_candidates(problem, config, gts, priors.levels, out=candidate)
    if problem.candidate_mask is not None:
        candidate.mul_(problem.candidate_mask)
    images = []
    for image, (start, stop) in enumerate(pairwise(gts.starts)):
        if start < stop:
            prior = candidate[image].nonzero().squeeze(1)  # [n]
            found = _Image.of(problem, config, gts, priors, image, slice(start, stop), prior)
            if found is None:
                return None
            images.append(found)
    k, won = torch.ones_like(gts.packed), []
    for found in images:
        k[found.rows], taken, pairs = found.match()
        claims.index_copy_(0, found.place, taken)
        won.append(pairs)
    return k, Pairs.concatenate(won)


class _Image(NamedTuple):
    """The candidates of an image, n of them, and the terms of their pairs with its G gts.

    Attributes:
        config: The configuration.
        rows: The image's gts among all of them.
        prior: [n].
        place: [n], image * P + prior.
        logits: [n, C].
        objectness: [n, 1], or None.
        iou: [G, n]; -1 where a pair does not exist.
        terms: Of the pairs.
    """

    config: SimOTAConfig
    rows: slice
    prior: Tensor
    place: Tensor
    logits: Tensor
    objectness: Tensor | None
    iou: Tensor
    terms: PairTerms

    @staticmethod
    def of(
        problem: Problem,
        config: SimOTAConfig,
        gts: Gts,
        priors: Priors,
        image: int,
        rows: slice,
        prior: Tensor,
    ) -> _Image | None:
        """Of candidates ``prior`` [n]; None where one of their predictions is not finite."""
        place = prior + image * problem.shape[1]
        logits, objectness = problem.cls_logits.at_places(place), None
        # rows of [4, n] seen as columns: arithmetic on them is six times as fast as on columns of a matrix
        corners = problem.pred_boxes[image].index_select(0, prior).float().t().contiguous()  # [4, n]
        read = corners.norm() + logits.sum(dtype=torch.float32)
        if problem.obj_logits is not None:
            objectness = problem.obj_logits.at_places(place)
            read = read + objectness.sum(dtype=torch.float32)
        if not math.isfinite(read):
            return None
        gt_boxes, gt_centers = gts.boxes[rows, None], gts.centers[rows, None]  # [G, 1, 4], [G, 1, 2]
        points, boxes = priors.columns.index_select(1, prior).t(), corners.t()  # [n, 4], [n, 4]
        inter = intersection(corners[:, None], gts.boxes[rows].t()[:, :, None], dim=0)  # [G, n]
        iou = terms.shared_part(inter, box_area(boxes) + box_area(gt_boxes), config)
        own = terms.class_scores(logits, objectness, config).t().index_select(0, gts.labels[rows])  # [G, n]
        outside = None
        if config.penalty and config.eligible != "all":
            outside = ~terms.in_region(points, gt_boxes, gt_centers, config.eligible, config.center_radius)
        pair_terms = PairTerms(
            own=terms.class_cost(own, iou, config),
            background=terms.background_cost(own, config) if config.cls_classes == "all" else own,
            iou=terms.iou_cost(boxes, gt_boxes, iou, config),
            center=terms.center_cost(points, gt_centers, config) if config.center_weight else None,
            outside=outside,
        )
        if config.own_pairs_only:
            inside = terms.in_region(points, gt_boxes, gt_centers, config.candidate, config.center_radius)
            iou = iou.masked_fill_(~inside, -1.0)
        return _Image(config, rows, prior, place, logits, objectness, iou, pair_terms)

    def match(self) -> tuple[Tensor, Tensor, Pairs]:
        """dynamic_k [G], claims of the candidates [n], and the pairs that are left once conflicts are
        resolved.
        """
        config, size = self.config, self.prior.shape[0]
        top = self.iou.topk(min(config.candidate_topk, size), dim=1, sorted=False).values
        k = count_k(top, config.k_scale)
        which = self._may_be_taken(k)  # [m]
        cost, iou = self._cost(which), self.iou.index_select(1, which)  # [G, m]
        taken = _cheapest(cost, k, config.max_dynamic_k)
        count = taken.sum(0, dtype=torch.int32)
        contested = (count > 1).nonzero().squeeze(1)
        if contested.numel():
            _resolve(taken, contested, cost, iou, config)
        pair = taken.flatten().nonzero().squeeze(1)
        column = which.index_select(0, pair % max(which.shape[0], 1))
        row = pair // max(which.shape[0], 1) + self.rows.start
        claims = torch.zeros(size, dtype=torch.int32, device=k.device).index_copy_(0, which, count)
        return (
            k,
            claims,
            Pairs(row, take(self.prior, column), take(iou.flatten(), pair), take(cost.flatten(), pair)),
        )

    def _may_be_taken(self, k: Tensor) -> Tensor:
        """Candidates [m] that may be among the k cheapest of a gt: all where few scores are summed, else
        those whose cost without the sum is within the k-th exact cost of some that are cheap without it.
        """
        config, size = self.config, self.prior.shape[0]
        if config.cls_classes != "all" or size * self.logits.shape[1] <= FEW_SCORES:
            return torch.arange(size, dtype=torch.int64, device=k.device)
        t = self.terms
        lower = self._hide(terms.pair_cost(t.own, t.iou, t.center, t.outside, config), self.iou)
        width = min(config.max_dynamic_k, size)
        cheap = lower.topk(width, dim=1, largest=False, sorted=False).indices.flatten().unique()
        limit = _kth_lowest(self._cost(cheap), k, width)
        return (lower <= loosened(limit)).any(0).nonzero().squeeze(1)

    def _cost(self, which: Tensor) -> Tensor:
        """Costs [G, m] of candidates ``which`` [m]."""
        config, few = self.config, self if which.shape[0] == self.prior.shape[0] else self._select(which)
        t = few.terms
        cls = t.own
        if config.cls_classes == "all":
            scores = terms.class_scores(few.logits, few.objectness, config)  # [m, C]
            cls = terms.swap_class(terms.background_cost(scores, config).sum(1), t.background, cls)
        return self._hide(terms.pair_cost(cls, t.iou, t.center, t.outside, config), few.iou)

    def _select(self, which: Tensor) -> _Image:
        """Some of the candidates."""
        prior, place, logits = (t.index_select(0, which) for t in (self.prior, self.place, self.logits))
        return self._replace(
            prior=prior,
            place=place,
            logits=logits,
            objectness=None if self.objectness is None else self.objectness.index_select(0, which),
            iou=self.iou.index_select(1, which),
            terms=self.terms.columns(which),
        )

    def _hide(self, cost: Tensor, iou: Tensor) -> Tensor:
        """Costs, +inf where a pair does not exist."""
        return cost.masked_fill_(iou < 0, torch.inf) if self.config.own_pairs_only else cost


def _kth_lowest(cost: Tensor, k: Tensor, width: int) -> Tensor:
    """The k-th lowest of each row [G, 1], k at most ``width``; below +inf."""
    last = (k - 1).clamp_(max=width - 1)[:, None]
    return cost.topk(width, dim=1, largest=False).values.gather(1, last).clamp_(max=terms.COST_LIMIT)


def _cheapest(cost: Tensor, k: Tensor, most: int) -> Tensor:
    """[G, m] bool: the k cheapest of each row, the first of equals, none of +inf."""
    width = min(most, cost.shape[1])
    if not width:
        return torch.zeros_like(cost, dtype=torch.bool)
    taken = cost <= _kth_lowest(cost, k, width)
    if bool((taken.sum(1) > k).any()):  # equals at the end
        taken &= cost.argsort(dim=1, stable=True).argsort(dim=1) < k[:, None]
    return taken


def _resolve(taken: Tensor, contested: Tensor, cost: Tensor, iou: Tensor, config: SimOTAConfig) -> None:
    """Leave contested priors to one gt each, in ``taken`` [G, m]."""
    claimed, cost = taken.index_select(1, contested), cost.index_select(1, contested)
    if config.conflict == "max_iou":
        owner = torch.where(cost < torch.inf, iou.index_select(1, contested), -1.0).max(0).indices
    else:
        owner = (cost.where(claimed, torch.inf) if config.conflict == "matched" else cost).min(0).indices
    taken.index_fill_(1, contested, False)
    taken[owner, contested] = True
