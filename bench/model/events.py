"""Counts on a CPU what the streaming kernels do on a batch: tiles visited, pairs that are looked at closely,
insertions, conflicts. The order of visits and every threshold are those of the kernels; a gt is a row of a
tensor instead of a warp.

It is written for rules like RTMDet's: gts' boxes are the candidate region, dynamic k comes from candidates,
and there is no penalty. ``tests/kernels/test_stream_model.py`` holds the counts to those of the kernels.
It goes once the kernels have been timed on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simota_triton import terms
from simota_triton.config import SimOTAConfig
from simota_triton.kernels import constants as const
from simota_triton.kernels.rule import Rule
from simota_triton.kernels.stream.grid import Grid
from simota_triton.tuning.stream_config import StreamConfig

AWAY, IOU_SLACK, LANES, NEARER, NONE, SLACK, SMALL = (
    getattr(const, name).value
    for name in ("NOWHERE", "IOU_SLACK", "LANES", "NEARER", "NONE", "SLACK", "SMALL")
)
SECTOR = 32
"""The smallest number of bytes that memory moves."""


@dataclass
class Visits:
    """What each program of a search does.

    Attributes:
        tiles: How many tiles it reads the boxes of.
        passed: How many of them have a pair that is looked at closely.
        insertions: How often it replaces an entry of its list.
    """

    tiles: Tensor
    passed: Tensor
    insertions: Tensor


@dataclass
class Events:
    """The events of one image.

    Attributes:
        near: [T], gts that ``prepare`` compares with the priors of each tile.
        chunks: [T], blocks of gts that ``prepare`` compares with each tile's box.
        tiles: Number of tiles with a candidate.
        rows: Number of programs that sum logits and have a candidate.
        logits: Number of logits that they sum.
        logit_bytes: Size of a logit -> bytes of the sectors of memory that hold those logits.
        top_iou: [G, splits], the searches for the largest IoUs.
        select: [G], the searches for the cheapest priors.
        dynamic_k: [G].
        contested: [conflicts], blocks of gts that ``resolve`` looks at closely for each prior with a
            conflict.
        gt_blocks: Number of blocks of gts that ``resolve`` goes through for each such prior.
    """

    near: Tensor
    chunks: Tensor
    tiles: int
    rows: int
    logits: int
    logit_bytes: dict[int, int]
    top_iou: Visits
    select: Visits
    dynamic_k: Tensor
    contested: Tensor
    gt_blocks: int


class Image:
    """An image's gts and tiles, with the bounds that the kernels form of them."""

    def __init__(
        self,
        boxes: Tensor,
        logits: Tensor,
        priors: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        grid: Grid,
        config: SimOTAConfig,
        kernels: StreamConfig,
    ) -> None:
        rule = Rule.of(config)
        if rule.iou_cost != "log" or not rule.by_distance or rule.pool_all or rule.own_pairs_only:
            raise ValueError(f"config: expected RTMDet's kind of rule, got {config!r}")
        self.config, self.kernels, self.grid, self.priors, self.logits = config, kernels, grid, priors, logits
        self.gt_boxes, self.gt_labels = gt_boxes, gt_labels
        self.gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        self.gt_area = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clamp(min=0).prod(1)
        self.prior = slots(grid, kernels.tile)  # [T, tile], -1: no prior
        self.near, self.chunks, candidate = self._candidates()
        here = self.prior.clamp(min=0)
        counts = candidate[here] & (self.prior >= 0)
        self.counts, self.candidate = counts, candidate
        nowhere = torch.tensor([AWAY, AWAY, -AWAY, -AWAY])
        self.boxes = torch.where(counts[..., None], boxes[here], nowhere)  # [T, tile, 4]
        self.points = priors[here]  # [T, tile, 4]
        self.areas = (self.boxes[..., 2:] - self.boxes[..., :2]).clamp(min=0).prod(2)
        self.background = terms.background_cost(self.logits, config).sum(1)  # [P]
        largest = torch.where(counts, self.areas, 0.0).amax(1)
        small = (counts & (self.areas <= largest[:, None] * SMALL))[..., None]
        around, around_small = self._around(counts[..., None]), self._around(small)
        present = self.prior >= 0
        left_top = torch.where(present[..., None], self.points[..., :2], torch.inf).amin(1)
        right_bottom = torch.where(present[..., None], self.points[..., :2], -torch.inf).amax(1)
        stride = torch.where(present, self.points[..., 2], 0.0).amax(1)
        self.alive = counts.any(1)  # [T]
        # bounds of each gt and tile, [G, T]
        area, most_of_small = self.gt_area[:, None], largest * SMALL
        shared = torch.minimum(self._shared(around), largest)
        by_large = shared / (area + (most_of_small - shared).clamp(min=0))
        by_small = torch.minimum(self._shared(around_small), most_of_small) / area
        self.bound = (torch.maximum(by_large, by_small) * (1 + IOU_SLACK)).clamp(max=1.0)
        center = self.gt_centers[:, None]
        middle = (around_small[:, :2] + around_small[:, 2:]) / 2
        # squared distance of a tile's small boxes from the gt, in sides of the gt
        self.sides = (middle[None] - center).square().sum(2) / area
        apart = torch.maximum(left_top[None] - center, center - right_bottom[None]).clamp(min=0)
        offset = apart / stride.clamp(min=1e-37)[None, :, None]
        self.distance = offset.square().sum(2) * (1 - IOU_SLACK)

    def _around(self, which: Tensor) -> Tensor:
        """The box around some boxes of each tile, [T, 4]."""
        boxes = torch.where(which, self.boxes, torch.tensor([AWAY, AWAY, -AWAY, -AWAY]))
        return torch.cat([boxes[..., :2].amin(1), boxes[..., 2:].amax(1)], 1)

    def _shared(self, boxes: Tensor) -> Tensor:
        """The area that gts share with a box of each tile, [G, T]."""
        gts = self.gt_boxes[:, None]
        return (
            (
                torch.minimum(boxes[None, :, 2:], gts[..., 2:])
                - torch.maximum(boxes[None, :, :2], gts[..., :2])
            )
            .clamp(min=0)
            .prod(2)
        )

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """What ``prepare`` looks at, [T] each, and which priors are candidates, [P]."""
        present = self.prior >= 0
        points = self.priors[self.prior.clamp(min=0)][..., :2]
        low = torch.where(present[..., None], points, torch.inf).amin(1)
        high = torch.where(present[..., None], points, -torch.inf).amax(1)
        candidate = torch.zeros(len(self.priors), dtype=torch.bool)
        near, chunks = torch.zeros(len(low), dtype=torch.int64), torch.zeros(len(low), dtype=torch.int64)
        open_tiles = torch.ones(len(low), dtype=torch.bool)
        for gts in self.gt_boxes.split(self.kernels.gts):
            meets = ((gts[:, None, :2] < high) & (gts[:, None, 2:] > low)).all(2) & open_tiles  # [g, T]
            chunks += open_tiles
            near += meets.sum(0)
            inside = terms.in_region(self.priors[None], gts[:, None], gts[:, None, :2], "box", 0.0).any(0)
            candidate |= inside & _of_tiles(open_tiles, self.prior, len(self.priors))
            open_tiles &= ~(candidate[self.prior.clamp(min=0)] | ~present).all(1)
        return near, chunks, candidate

    def pairs(self, gts: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Intersection and union of gts and all priors of one tile each, [n, tile]."""
        boxes, gt = self.boxes[tiles], self.gt_boxes[gts][:, None]
        width = (torch.minimum(boxes[..., 2], gt[..., 2]) - torch.maximum(boxes[..., 0], gt[..., 0])).clamp(
            min=0
        )
        height = torch.minimum(boxes[..., 3], gt[..., 3]) - torch.maximum(boxes[..., 1], gt[..., 1])
        inter = width * height
        return inter, (self.areas[tiles] + self.gt_area[gts][:, None] - inter).clamp(
            min=self.config.union_eps
        )

    def cost(self, gts: Tensor, prior: Tensor, boxes: Tensor, iou: Tensor) -> Tensor:
        """Cost of pairs, [n]."""
        config = self.config
        scores = terms.class_scores(self.logits[prior, self.gt_labels[gts]], None, config)
        cls = terms.swap_class(
            self.background[prior],
            terms.background_cost(scores, config),
            terms.class_cost(scores, iou, config),
        )
        overlap = terms.iou_cost(boxes, self.gt_boxes[gts], iou, config)
        return terms.pair_cost(
            cls, overlap, terms.center_cost(self.priors[prior], self.gt_centers[gts], config), None, config
        )

    def limits(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Least IoU and largest squared distance of a pair that costs at most this;
        ``bounds.pair_limits``.
        """
        config = self.config
        wide = cost + cost.abs() * SLACK
        iou = (
            torch.exp2(wide * (-math.log2(math.e) / config.iou_weight)) * (1 - SLACK)
            - config.log_eps
            - IOU_SLACK
        )
        center = ((cost - self.least_cost) * ((1 + SLACK) / config.center_weight)).clamp(min=1e-37)
        strides = config.center_offset + center.log2() / math.log2(config.center_base)
        strides = strides + strides.abs() * IOU_SLACK
        return iou, torch.where(strides > 0, strides.square() * (1 + IOU_SLACK), -1.0)

    @property
    def least_cost(self) -> float:
        return -1.001 * self.config.iou_weight * self.config.log_eps - 1e-6 * self.config.iou_weight

    def may_cost(
        self, inter: Tensor, union: Tensor, points: Tensor, centers: Tensor, iou: Tensor, reach: Tensor
    ) -> Tensor:
        """``bounds.may_cost``."""
        distance = (points[..., :2] - centers).square().sum(-1)
        return ~(inter.clamp(min=0) < iou * union) & (distance <= reach * points[..., 2].square() + 1e-30)


def slots(grid: Grid, tile: int) -> Tensor:
    """Prior of each place of each tile, [T, tile], -1 where there is none; ``tiles.find_cells``."""
    place = torch.arange(tile)
    parts = []
    for start, end, width in zip(grid.starts, grid.starts[1:], grid.widths, strict=False):
        across, height = -(-width // grid.tile_width), tile // grid.tile_width
        rows = -(-(end - start) // width)
        down = -(-rows // height)
        of_level = torch.arange(across * down)[:, None]
        column = of_level % across * grid.tile_width + place % grid.tile_width
        p = start + (of_level // across * height + place // grid.tile_width) * width + column
        parts.append(torch.where((column < width) & (p < end), p, -1))
    return torch.cat(parts)


def _of_tiles(which: Tensor, prior: Tensor, num_priors: int) -> Tensor:
    """Priors of some tiles, [P] bool."""
    found = torch.zeros(num_priors + 1, dtype=torch.bool)
    found[prior[which].flatten()] = True  # -1 is the place behind the last prior
    return found[:-1]


def top_iou(image: Image) -> tuple[Visits, Tensor]:
    """Visits of ``top_iou``, [G, splits], and the lists of IoUs, [G, splits * 32]."""
    kernels, (num_gts, num_tiles) = image.kernels, image.bound.shape
    splits, width = kernels.splits, kernels.iou_bounds
    gt, split = torch.arange(num_gts).repeat_interleave(splits), torch.arange(splits).repeat(num_gts)
    best = torch.where(torch.arange(LANES) < image.config.candidate_topk, 0.0, torch.inf).repeat(len(gt), 1)
    count = Visits(*torch.zeros(3, len(gt), dtype=torch.int64))
    chunks = -(-num_tiles // (width * splits))
    for chunk in range(chunks):
        tile = (torch.arange(width) * chunks + chunk) * splits + split[:, None]
        present, tile = tile < num_tiles, tile.clamp(max=num_tiles - 1)
        bound = torch.where(present, image.bound[gt[:, None], tile], 0.0)
        waiting = order(1 - bound + nearer(image.sides[gt[:, None], tile]), bound > 0)
        rows = torch.arange(len(gt))
        while True:
            key = waiting[rows].amin(1)
            more = 1 - least_bound(key, width) > best[rows].amin(1)
            rows, key = rows[more], key[more]
            if not len(rows):
                break
            index = (key & (width - 1)).long()
            waiting[rows, index] = NONE
            count.tiles[rows] += 1
            inter, union = image.pairs(gt[rows], tile[rows, index])
            least = best[rows].amin(1, True)
            worth = (inter > 0) & ~(inter.clamp(min=0) < least * (1 - 2.0**-20) * union)
            hit = worth.any(1)
            passed = rows[hit]
            count.passed[passed] += 1
            found = torch.where(worth, inter / union, -1.0)[hit]
            adding = torch.arange(len(passed))
            while len(adding):
                value, at = found[adding].max(1)
                low, out = best[passed[adding]].min(1)
                more = value > low
                adding, value, at, out = adding[more], value[more], at[more], out[more]
                found[adding, at] = -1.0
                best[passed[adding], out] = value
                count.insertions[passed[adding]] += 1
    shaped = Visits(*(value.view(num_gts, splits) for value in (count.tiles, count.passed, count.insertions)))
    return shaped, torch.where(best == torch.inf, 0.0, best).view(num_gts, -1)


def nearer(distance: Tensor) -> Tensor:
    """``visits.nearer``."""
    return (distance * (NEARER / 1024)).clamp(max=NEARER)


def order(rank: Tensor, alive: Tensor) -> Tensor:
    """Keys of tiles, [n, bounds] int32; ``visits.order``."""
    width = rank.shape[1]
    key = (rank.float().contiguous().view(torch.int32) & -width) | torch.arange(width, dtype=torch.int32)
    return torch.where(alive, key, NONE)


def least_bound(key: Tensor, width: int) -> Tensor:
    """``visits.least_bound``: NaN of NONE."""
    return (key & -width).view(torch.float32) - NEARER


def select(image: Image, dynamic_k: Tensor) -> tuple[Visits, Tensor, Tensor]:
    """Visits of ``select``, [G], and the lists of costs and priors, [G, 32]."""
    width, (num_gts, num_tiles) = image.kernels.bounds, image.bound.shape
    in_use = torch.arange(LANES) < dynamic_k[:, None]
    costs = torch.where(in_use, torch.inf, -torch.inf)
    priors = torch.where(in_use, NONE, -1)
    count = Visits(*torch.zeros(3, num_gts, dtype=torch.int64))
    chunks = -(-num_tiles // width)
    for chunk in range(chunks):
        tile = torch.arange(chunk, num_tiles, chunks)
        pad = (0, width - len(tile))
        distance = torch.nn.functional.pad(image.distance[:, tile], pad)
        alive = torch.nn.functional.pad(image.alive[tile], pad).expand(num_gts, -1)
        waiting = order(distance.clamp(max=AWAY), alive)
        rows = torch.arange(num_gts)
        while True:
            key = waiting[rows].amin(1)
            more = least_bound(key, width) <= image.limits(costs[rows].amax(1))[1]
            rows, key = rows[more], key[more]
            if not len(rows):
                break
            index = (key & (width - 1)).long()
            waiting[rows, index] = NONE
            count.tiles[rows] += 1
            at_tile = chunk + index * chunks
            inter, union = image.pairs(rows, at_tile)
            least_iou, reach = image.limits(costs[rows].amax(1, True))
            worth = image.may_cost(
                inter, union, image.points[at_tile], image.gt_centers[rows][:, None], least_iou, reach
            )
            hit = worth.any(1)
            passed = rows[hit]
            count.passed[passed] += 1
            worth &= image.counts[at_tile]
            worth, inter, union, at_tile = worth[hit], inter[hit], union[hit], at_tile[hit]
            row, place = worth.nonzero(as_tuple=True)
            prior = image.prior[at_tile]
            found = torch.full(worth.shape, torch.inf)
            iou = (inter / union).clamp(min=0)[row, place]
            found[row, place] = image.cost(
                passed[row], prior[row, place], image.boxes[at_tile[row], place], iou
            )
            adding = torch.arange(len(passed))
            while len(adding):
                cheapest = found[adding].amin(1)
                p = torch.where(found[adding] == cheapest[:, None], prior[adding], NONE).amin(1)
                own_costs, own_priors = costs[passed[adding]], priors[passed[adding]]
                dearest = own_costs.amax(1)
                last = torch.where(own_costs == dearest[:, None], own_priors, -1).amax(1)
                more = (cheapest < dearest) | ((cheapest == dearest) & (p < last) & (cheapest != torch.inf))
                out = ((own_costs == dearest[:, None]) & (own_priors == last[:, None])).int().argmax(1)
                adding, cheapest, p, out = adding[more], cheapest[more], p[more], out[more]
                found[adding] = torch.where(prior[adding] == p[:, None], torch.inf, found[adding])
                costs[passed[adding], out], priors[passed[adding], out] = cheapest, p
                count.insertions[passed[adding]] += 1
    return count, costs, priors


def contested(image: Image, costs: Tensor, priors: Tensor) -> Tensor:
    """For each prior with a conflict, the blocks of gts that ``resolve`` looks at closely. Here gts claim
    priors in the order of their index.
    """
    gt, lane = ((priors >= 0) & (priors != NONE)).nonzero(as_tuple=True)
    prior, cost = priors[gt, lane], costs[gt, lane]
    by_prior = prior.argsort(stable=True)
    prior, cost = prior[by_prior], cost[by_prior]
    first = torch.searchsorted(prior, prior)
    second = torch.arange(len(prior)) == first + 1
    prior, cost = prior[second], cost[second]
    slot = torch.full((len(image.priors),), -1)
    slot[image.prior[image.prior >= 0]] = (image.prior >= 0).flatten().nonzero().squeeze(1)
    boxes, areas = image.boxes.view(-1, 4)[slot[prior]][:, None], image.areas.flatten()[slot[prior]][:, None]
    limit = cost[:, None]
    blocks = torch.zeros(len(prior), dtype=torch.int64)
    for block in torch.arange(len(image.gt_boxes)).split(image.kernels.gts):
        gts = image.gt_boxes[block][None]
        size = torch.minimum(boxes[..., 2:], gts[..., 2:]) - torch.maximum(boxes[..., :2], gts[..., :2])
        inter = size[..., 0].clamp(min=0) * size[..., 1]
        union = (areas + image.gt_area[block] - inter).clamp(min=image.config.union_eps)
        points = image.priors[prior][:, None]
        worth = image.may_cost(inter, union, points, image.gt_centers[block][None], *image.limits(limit))
        blocks += worth.any(1)
        row, place = worth.nonzero(as_tuple=True)
        found = torch.full(worth.shape, torch.inf)
        iou = (inter.clamp(min=0) / union)[row, place]
        found[row, place] = image.cost(block[place], prior[row], boxes[row, 0], iou)
        limit = torch.minimum(limit, found.amin(1, True))
    return blocks


def count_events(image: Image) -> Events:
    """All events of an image."""
    visits, ious = top_iou(image)
    total = ious.sort(1, descending=True).values[:, : image.config.candidate_topk].double().sum(1)
    dynamic_k = (total * image.config.k_scale).floor().long().clamp(min=1)
    selected, costs, priors = select(image, dynamic_k)
    rows = image.counts.view(len(image.counts), -1, image.kernels.rows).any(2)
    channels = image.logits.shape[1]
    levels = list(zip(image.grid.starts, image.grid.starts[1:], strict=False))

    def sectors(size: int) -> int:
        return sum(
            len((image.candidate[start:end].nonzero() * size // SECTOR).unique()) for start, end in levels
        )

    return Events(
        near=image.near,
        chunks=image.chunks,
        tiles=int(image.alive.sum()),
        rows=int(rows.sum()),
        logits=int(image.counts.sum()) * channels,
        logit_bytes={size: sectors(size) * SECTOR * channels for size in (4, 2)},
        top_iou=visits,
        select=selected,
        dynamic_k=dynamic_k,
        contested=contested(image, costs, priors),
        gt_blocks=-(-len(image.gt_boxes) // image.kernels.gts),
    )
