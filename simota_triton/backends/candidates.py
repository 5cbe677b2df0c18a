"""The priors of each image that its gts have to compare."""

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
"""(gt, candidate) pairs formed at once: 1 MB a tensor, of which three are alive."""

GRID_FACTOR = 4
"""Priors count as a grid while their distinct columns times rows are at most this many times P (1.7 for three levels)."""


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
class Candidates:
    """The priors that the gts of one image compare.

    Attributes:
        index: [n], ascending.
        boxes: [n, 4] float32, each column contiguous.
        selectable: [n] bool, the others only count for ``dynamic_k``; None for all.
    """

    index: Tensor
    boxes: Tensor
    selectable: Tensor | None


@dataclass(frozen=True)
class Grid:
    """Distinct columns and rows of the priors: a region is a product of intervals, so it is tested on those alone.

    Attributes:
        along: Distinct (position, stride) in x and in y, [u, 2] each.
        cell: [P], column * number of rows + row of each prior.
    """

    along: tuple[Tensor, Tensor]
    cell: Tensor

    @staticmethod
    def of(priors: Tensor) -> Grid | None:
        """The grid of priors [P, 4], or None where they lie too irregularly for it to pay."""
        along, inverse = [], []
        for i in (0, 1):
            bits = priors[:, i::2].clone(memory_format=torch.contiguous_format).view(torch.int64).squeeze(1)
            distinct, where = bits.unique(return_inverse=True)
            along.append(distinct[:, None].view(torch.float32))
            inverse.append(where)
        if along[0].shape[0] * along[1].shape[0] > GRID_FACTOR * priors.shape[0]:
            return None
        return Grid((along[0], along[1]), inverse[0] * along[1].shape[0] + inverse[1])

    def hits(self, gts: Gts, rows: slice, config: SimOTAConfig) -> list[tuple[Tensor, Tensor]]:
        """For each box that the candidate region is a union of: the columns and the rows that each gt covers, [g, u] 0 or 1."""
        boxes, centers = gts.boxes[rows, :, None], gts.centers[rows, :, None]
        region = config.candidate, config.center_radius
        depths = (
            terms.region_depths(along[:, 0], along[:, 1], boxes[:, i], boxes[:, 2 + i], centers[:, i], *region)
            for i, along in enumerate(self.along)
        )
        return [((x > 0).float(), (y > 0).float()) for x, y in zip(*depths, strict=True)]


def find_candidates(problem: Problem, config: SimOTAConfig, gts: Gts, usable: Tensor | None) -> list[Candidates]:
    """The candidates of each image; ``usable`` [B, P] says which priors take part, None for all."""
    selectable = _in_any_region(problem, config, gts)  # [B, P]
    if usable is not None:
        selectable &= usable
    compared = selectable
    if config.k_pool == "all":
        compared = torch.ones_like(selectable) if usable is None else usable
    image, prior = compared.nonzero().unbind(1)
    counts = torch.bincount(image, minlength=problem.shape[0]).tolist()
    boxes = problem.pred_boxes.flatten(0, 1).index_select(0, image * problem.shape[1] + prior)
    boxes = boxes.float().t().contiguous()  # [4, n]
    keep = selectable[image, prior].split(counts) if config.k_pool == "all" else [None] * len(counts)
    columns = zip(prior.split(counts), boxes.split(counts, 1), keep, strict=True)
    return [Candidates(index, own_boxes.t(), mask) for index, own_boxes, mask in columns]


def _in_any_region(problem: Problem, config: SimOTAConfig, gts: Gts) -> Tensor:
    """[B, P] bool: the prior lies in the candidate region of a gt of the image."""
    batch, num_priors, _ = problem.shape
    found = torch.zeros((batch, num_priors), dtype=torch.bool, device=gts.boxes.device)
    grid = None if config.candidate == "all" else Grid.of(problem.priors)
    if grid is None:
        for image, (start, stop) in enumerate(pairwise(gts.starts)):
            for rows in blocks(start, stop, num_priors):
                boxes, centers = gts.boxes[rows, None], gts.centers[rows, None]
                found[image] |= terms.in_region(problem.priors, boxes, centers, config.candidate, config.center_radius).any(0)
        return found
    count = torch.zeros((batch, grid.along[0].shape[0], grid.along[1].shape[0]), device=found.device)
    for rows in blocks(0, gts.starts[-1], max(count.shape[1:])):
        hits = grid.hits(gts, rows, config)
        for image, (start, stop) in enumerate(pairwise(gts.starts)):
            own = slice(max(start - rows.start, 0), max(stop - rows.start, 0))
            for x, y in hits:
                count[image].addmm_(x[own].t(), y[own])
    return count.flatten(1).index_select(1, grid.cell) > 0


def blocks(start: int, stop: int, width: int) -> Iterator[slice]:
    """Runs of rows of which each forms about ``BLOCK_PAIRS`` pairs with ``width`` others."""
    step = max(1, BLOCK_PAIRS // max(width, 1))
    return (slice(i, min(i + step, stop)) for i in range(start, stop, step))


def usable_mask(problem: Problem, all_classes: bool) -> Tensor:
    """[B, P] bool: priors that take part; where all classes count, all of their logits are finite."""
    usable = usable_priors(problem)
    if all_classes:
        usable = usable & torch.cat([level.isfinite().all(2) for level in problem.cls_logits.levels], dim=1)
    return usable
