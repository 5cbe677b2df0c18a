"""The terms of lists of (gt, prior) pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...boxes import box_area, guard, intersection
from ...config import TaskAlignedConfig
from ...priors import KnownPriors
from ...problem import Problem
from ...task_aligned import terms
from ..gts import Gts, blocks, take, take_columns
from .grids import Grids

GROUP_PAIRS = 1 << 18
"""Pairs of gts and priors in their regions that are formed at once; the larger, the fewer operations."""


class Pairs(NamedTuple):
    """Some pairs.

    Attributes:
        row: [n], among the real gts.
        place: [n], image * P + prior.
        overlap: [n].
        metric: [n]; 0 where the pair does not exist.
    """

    row: Tensor
    place: Tensor
    overlap: Tensor
    metric: Tensor

    def select(self, which: Tensor) -> Pairs:
        """The pairs of some indices."""
        return Pairs(*(column.index_select(0, which) for column in self))

    @staticmethod
    def concatenate(parts: list[Pairs]) -> Pairs:
        """One after the other."""
        return parts[0] if len(parts) == 1 else Pairs(*map(torch.cat, zip(*parts, strict=True)))


class PairTerms:
    """Overlap, metric and region of a problem's pairs.

    What is not finite needs no mask but that of the gt's own logit: a prediction with a NaN, or with an area
    that is not finite, has an IoU of NaN or 0 with every gt, and only pairs of a larger one go on. A prior
    that takes no part is given such a box.
    """

    def __init__(self, problem: Problem, config: TaskAlignedConfig, gts: Gts) -> None:
        self.problem, self.config, self.gts = problem, config, gts
        batch, self.num_priors, _ = problem.shape
        self.num_places = batch * self.num_priors
        self._usable, self._grids = KnownPriors.of(problem.priors).fact(_facts)
        # columns of their own, because arithmetic on them is six times as fast as on columns of a matrix
        self._boxes = problem.pred_boxes.float().permute(2, 0, 1).contiguous().flatten(1)  # [4 or 5, B * P]
        self._gt_boxes = gts.boxes.t().contiguous()  # [4 or 5, N]
        self._regions = terms.region_boxes(gts.boxes, config)  # [N, 4 or 5]
        self._hulls = _hulls(self._regions) if config.boxes == "rotated" else self._regions  # [N, 4]
        self._start = gts.image * self.num_priors  # [N], place of prior 0
        usable = self._usable
        if problem.candidate_mask is not None:
            usable = problem.candidate_mask if usable is None else problem.candidate_mask & usable
        if usable is not None:
            nothing = torch.nan if config.boxes == "rotated" else 0.0
            self._boxes = self._boxes.masked_fill(~usable.expand(problem.shape[:2]).flatten(), nothing)

    @functools.cached_property
    def _areas(self) -> Tensor:
        return box_area(self._boxes.t())  # [B * P]

    @functools.cached_property
    def _gt_areas(self) -> Tensor:
        return box_area(self.gts.boxes)  # [N]

    def groups(self) -> list[slice]:
        """Runs of gts, each of which has about ``GROUP_PAIRS`` pairs with priors in their regions, or more
        where a single one has.
        """
        number = self._regions.shape[0]
        if number * self.num_priors <= GROUP_PAIRS:
            return [slice(0, number)]
        if self._grids is None:
            return list(blocks(0, number, self.num_priors))
        group = self._grids.counts(self._hulls).cumsum(0).sub_(1).div_(GROUP_PAIRS, rounding_mode="floor")
        ends = [*((group[1:] != group[:-1]).nonzero().squeeze(1) + 1).tolist(), number]
        return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def in_region(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Row and place [n] of all pairs of gts ``rows`` with priors in their regions: gt after gt, of each
        its priors in ascending order.
        """
        config, start = self.config, self._start[rows]
        if self._grids is None:
            inside = terms.in_region(self.problem.priors, self._regions[rows, None], config)
            row, prior = inside.nonzero().unbind(1)
            return row + rows.start, start.index_select(0, row) + prior
        row, place = self._grids.pairs(self._hulls[rows], config.inclusive, start)
        row += rows.start
        if config.margin or config.max_reach is not None or config.boxes == "rotated":
            which = self.inside(row, place).nonzero().squeeze(1)
            row, place = row.index_select(0, which), place.index_select(0, which)
        return row, place

    def inside(self, row: Tensor, place: Tensor) -> Tensor:
        """Whether the priors of pairs lie in the regions of their gts, [n] bool."""
        prior = place - self._start.index_select(0, row)
        return terms.in_region(
            self.problem.priors.index_select(0, prior), self._regions.index_select(0, row), self.config
        )

    def across(
        self, row: Tensor, place: Tensor, least: Callable[[Tensor, Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All pairs of some gts with some places of their images, both ascending, that have an IoU above 0
        and above ``least`` of gts [g, 1] and places [n]: row, place and IoU of one block of them after the
        other.
        """
        places = torch.bincount(place // self.num_priors, minlength=len(self.gts.starts) - 1).tolist()
        edges = torch.searchsorted(
            row, torch.tensor(self.gts.starts, dtype=torch.int64, device=row.device)
        ).tolist()
        for own, (start, stop) in zip(place.split(places), pairwise(edges), strict=True):
            boxes, areas = take_columns(self._boxes, own[None]), take(self._areas, own)  # [4, 1, n], [n]
            for part in blocks(start, stop, own.shape[0]):
                gts = row[part, None]  # [g, 1]
                gt_boxes, gt_areas = take_columns(self._gt_boxes, gts), take(self._gt_areas, gts)
                iou = self._iou(boxes, gt_boxes, areas + gt_areas)  # [g, n]
                which = (iou > least(gts, own).clamp(min=0)).flatten().nonzero().squeeze(1)
                gt, column = which // own.shape[0], which % own.shape[0]
                yield (
                    row[part].index_select(0, gt), own.index_select(0, column),
                    iou.flatten().index_select(0, which),
                )  # fmt: skip

    def iou(self, row: Tensor, place: Tensor) -> Tensor:
        """IoU of pairs, [n], or ProbIoU: the overlap, or, but for rounding, at least as large."""
        boxes, gt_boxes = take_columns(self._boxes, place), take_columns(self._gt_boxes, row)
        return self._iou(boxes, gt_boxes, take(self._areas, place).add_(take(self._gt_areas, row)))

    def _iou(self, boxes: Tensor, gt_boxes: Tensor, areas: Tensor) -> Tensor:
        """As :meth:`iou`, of columns of boxes and the sum of both areas, which is overwritten."""
        if self.config.boxes == "rotated":
            return terms.pair_overlap(boxes.movedim(0, -1), gt_boxes.movedim(0, -1), self.config)
        rule = self.config.union_rule if self.config.overlap == "iou" else "none"
        inter = intersection(boxes, gt_boxes, dim=0)
        return inter.div_(guard(areas.sub_(inter), rule, self.config.union_eps))

    def overlap(self, row: Tensor, place: Tensor) -> Tensor:
        """Overlap of pairs, [n]."""
        boxes = take_columns(self._boxes, place).t(), take_columns(self._gt_boxes, row).t()
        return terms.pair_overlap(*boxes, self.config)

    def pairs(self, row: Tensor, place: Tensor) -> Pairs:
        """Pairs with their overlap and metric."""
        row, place = row.long(), place.long()
        overlap = self.overlap(row, place)
        logits, exists = self._own_logits(row, place)
        metric = terms.metric(terms.class_scores(logits, self.config), overlap, self.config)
        return Pairs(row, place, overlap, metric.where(exists, 0.0))

    def exist(self, row: Tensor, place: Tensor) -> Tensor:
        """Whether pairs that overlap exist, [n] bool."""
        return self._own_logits(row, place)[1]

    def _own_logits(self, row: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the gts' own classes [n], and whether the pairs exist."""
        image = self.gts.image.index_select(0, row)
        prior, label = place - image * self.num_priors, self.gts.labels.index_select(0, row)
        logits = self.problem.cls_logits.at(image, prior, label).float()
        exists = logits.isfinite()
        if self.problem.extra_cost is not None:  # which holds a mask of pairs here
            exists &= self.problem.extra_cost[self.gts.packed.index_select(0, row), prior].isfinite()
        return logits, exists


def _hulls(boxes: Tensor) -> Tensor:
    """Boxes along the axes around rotated ones, [N, 5] -> [N, 4], a little larger, for rounding."""
    center, (cos, sin) = boxes[:, :2], (boxes[:, 4].cos().abs(), boxes[:, 4].sin().abs())
    width, height = boxes[:, 2], boxes[:, 3]
    reach = torch.stack([width * cos + height * sin, width * sin + height * cos], 1) / 2
    reach = reach * (1 + 1e-5) + 1e-6 * center.abs()
    return torch.cat([center - reach, center + reach], 1)


def _facts(priors: Tensor) -> tuple[Tensor | None, Grids | None]:
    """Which priors [P, 4] take part, None for all of them; and the grids that they form."""
    usable = priors.isfinite().all(1) & (priors[:, 2:] > 0).all(1)
    return (None, Grids.of(priors)) if bool(usable.all()) else (usable, None)
