"""The terms of lists of (gt, prior) pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...boxes import box_iou
from ...config import TaskAlignedConfig
from ...priors import KnownPriors
from ...problem import Problem
from ...task_aligned import terms
from ..gts import Gts, blocks, take_columns
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
    that takes no part is given a box without area.
    """

    def __init__(self, problem: Problem, config: TaskAlignedConfig, gts: Gts) -> None:
        self.problem, self.config, self.gts = problem, config, gts
        _, self.num_priors, _ = problem.shape
        self._usable, self._grids = KnownPriors.of(problem.priors).fact(_facts)
        # columns of their own, because arithmetic on them is six times as fast as on columns of a matrix
        self._corners = problem.pred_boxes.float().permute(2, 0, 1).flatten(1)  # [4, B * P]
        self._gt_corners = gts.boxes.t().contiguous()  # [4, N]
        self._regions = terms.region_boxes(gts.boxes, config)  # [N, 4]
        self._start = gts.image * self.num_priors  # [N], place of prior 0
        usable = self._usable
        if problem.candidate_mask is not None:
            usable = problem.candidate_mask if usable is None else problem.candidate_mask & usable
        if usable is not None:
            self._corners = self._corners.masked_fill(~usable.expand(problem.shape[:2]).flatten(), 0.0)

    def groups(self) -> list[slice]:
        """Runs of gts, each of which has about ``GROUP_PAIRS`` pairs with priors in their regions, or more
        where a single one has.
        """
        number = self._regions.shape[0]
        if number * self.num_priors <= GROUP_PAIRS:
            return [slice(0, number)]
        if self._grids is None:
            return list(blocks(0, number, self.num_priors))
        group = self._grids.counts(self._regions).cumsum(0).sub_(1).div_(GROUP_PAIRS, rounding_mode="floor")
        ends = [*((group[1:] != group[:-1]).nonzero().squeeze(1) + 1).tolist(), number]
        return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def in_region(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Row and place [n] of all pairs of gts ``rows`` with priors in their regions: gt after gt, of each
        its priors in ascending order.
        """
        config, regions, start = self.config, self._regions[rows], self._start[rows]
        if self._grids is None:
            priors = self.problem.priors
            row, prior = terms.in_region(priors, regions[:, None], config).nonzero().unbind(1)
            return row + rows.start, start.index_select(0, row) + prior
        row, place = self._grids.pairs(regions, config.inclusive, start)
        row += rows.start
        if config.margin or config.max_reach is not None:
            which = self.inside(row, place).nonzero().squeeze(1)
            row, place = row.index_select(0, which), place.index_select(0, which)
        return row, place

    def inside(self, row: Tensor, place: Tensor) -> Tensor:
        """Whether the priors of pairs lie in the regions of their gts, [n] bool."""
        prior = place - self._start.index_select(0, row)
        return terms.in_region(
            self.problem.priors.index_select(0, prior), self._regions.index_select(0, row), self.config
        )

    def everywhere(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Row, place and IoU of all pairs of gts ``rows``, ascending, that overlap: some gts at a time."""
        config, corners = self.config, self._corners.view(4, -1, self.num_priors)
        counts = torch.bincount(self.gts.image.index_select(0, rows), minlength=corners.shape[1]).tolist()
        stop = 0
        for image, count in enumerate(counts):
            start, stop = stop, stop + count
            for part in blocks(start, stop, self.num_priors):
                own = rows[part]
                gt_boxes = take_columns(self._gt_corners, own).t()[:, None]  # [g, 1, 4]
                iou = box_iou(corners[:, image].t(), gt_boxes, **self._guard(config))  # [g, P]
                which = (iou > 0).flatten().nonzero().squeeze(1)
                row = own.index_select(0, which // self.num_priors)
                place = which % self.num_priors + image * self.num_priors
                yield row, place, iou.flatten().index_select(0, which)

    @staticmethod
    def _guard(config: TaskAlignedConfig) -> dict[str, Any]:
        return {"rule": config.union_rule, "eps": config.union_eps} if config.overlap == "iou" else {}

    def iou(self, row: Tensor, place: Tensor) -> Tensor:
        """IoU of pairs, [n]: the overlap, or, but for rounding, at least as large."""
        boxes = take_columns(self._corners, place).t(), take_columns(self._gt_corners, row).t()
        return box_iou(*boxes, **self._guard(self.config))

    def overlap(self, row: Tensor, place: Tensor) -> Tensor:
        """Overlap of pairs, [n]."""
        boxes = take_columns(self._corners, place).t(), take_columns(self._gt_corners, row).t()
        return terms.pair_overlap(*boxes, self.config)

    def pairs(self, row: Tensor, place: Tensor, iou: Tensor) -> Pairs:
        """Pairs of known IoUs with their overlap and metric."""
        overlap = iou if self.config.overlap == "iou" else self.overlap(row, place)
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


def _facts(priors: Tensor) -> tuple[Tensor | None, Grids | None]:
    """Which priors [P, 4] take part, None for all of them; and the grids that they form."""
    usable = priors.isfinite().all(1) & (priors[:, 2:] > 0).all(1)
    return (None, Grids.of(priors)) if bool(usable.all()) else (usable, None)
