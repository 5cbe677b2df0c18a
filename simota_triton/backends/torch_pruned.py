"""SimOTA in plain PyTorch for CPUs, by exact pruning: costs only for the pairs that can still be among the k cheapest.

Gts are taken in groups. (1) Their IoUs with all priors of their image are formed a block at a time, and only maxima over a
few priors are kept; the largest IoUs, which ``dynamic_k`` is the sum of, are found through those. (2) The priors near a
gt's centre, outside of which the centre term or the penalty alone costs ``Costs.floor``, are listed and ranked by their
cost without its class term; the k-th smallest cost of the best few bounds the true one from above. (3) Only pairs whose
lower bound stays below survive: near ones, and, where the limit is above the floor, those of a large IoU. Sums over all
classes are formed for these alone. Rounding is covered by :func:`_slack`, which only ever keeps more pairs.

Memory: O(B * P + N * q + a group's maxima and near priors + surviving pairs), whatever G * P is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config import SimOTAConfig
from ..inputs import Problem
from ..matching import Matching, count_k, pack_key, sortable
from ..terms import COST_LIMIT
from .candidates import Gts, blocks
from .folded import FoldedRows, fold, unfold
from .pairs import ClassSums, Costs, Pairs

GROUP_PAIRS = 1 << 21
"""(gt, prior) pairs of a group: the larger the groups, the fewer small operations there are."""

LISTED = 2
"""Priors that the first bound is taken from, for each that may be selected."""


def assign(problem: Problem, config: SimOTAConfig) -> Matching:
    """The assignment of a batch; see the module."""
    batch, num_priors, _ = problem.shape
    device = problem.priors.device
    gts = Gts.of(problem)
    dynamic_k = torch.zeros(problem.gts.boxes.shape[0], dtype=torch.int64, device=device)
    gt_index = torch.full((batch * num_priors,), -1, dtype=torch.int64, device=device)
    matched_iou = torch.zeros(batch * num_priors, device=device)
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=device)
    if gts.packed.numel() and not num_priors:
        dynamic_k[gts.packed] = 1
    elif gts.packed.numel():
        costs = Costs(problem, config, gts, careful=False)
        matched = _match(costs)
        if not costs.clean():
            costs = Costs(problem, config, gts, careful=True)
            matched = _match(costs)
        dynamic_k[gts.packed], picked, won = matched
        gt_index[costs.flat(won.place)] = gts.slot[won.row]
        matched_iou[costs.flat(won.place)] = won.iou
        flat = costs.flat(picked)
        claims.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    return Matching(
        gt_index=gt_index.view(batch, num_priors),
        matched_iou=matched_iou.view(batch, num_priors),
        dynamic_k=dynamic_k if problem.gts.padded_shape is None else dynamic_k.view(problem.gts.padded_shape),
        claims=claims.view(batch, num_priors),
    )


def _match(costs: Costs) -> tuple[Tensor, Tensor, Pairs]:
    """dynamic_k of the real gts, the places they selected, and the pairs that are left once conflicts are resolved."""
    num_gts, sums = costs.gts.packed.shape[0], ClassSums(costs)
    k = torch.ones_like(costs.gts.packed)
    size = max(1, GROUP_PAIRS // costs.stride)
    groups = [slice(start, min(start + size, num_gts)) for start in range(0, num_gts, size)]
    picked = Pairs.concatenate([_select(costs, rows, k, sums) for rows in groups])
    count = torch.zeros(costs.boxes.shape[0], dtype=torch.int32, device=k.device)
    count.scatter_add_(0, picked.place, torch.ones_like(picked.place, dtype=torch.int32))
    contested = count.index_select(0, picked.place) > 1
    if not bool(contested.any()):
        return k, picked.place, picked
    single, several = ((contested == flag).nonzero().squeeze(1) for flag in (False, True))
    return k, picked.place, Pairs.concatenate([picked.select(single), _resolve(costs, picked.select(several), sums)])


class _Ious(NamedTuple):
    """IoUs of some gts with all priors of their image, of which the maxima of each fold are kept."""

    costs: Costs
    row: Tensor
    maxima: FoldedRows

    @staticmethod
    def of(costs: Costs, rows: slice) -> _Ious:
        """Of gts ``rows``."""
        parts = [fold(costs.iou_block(image, part)) for image, part in costs.gts.blocks(rows, costs.stride)]
        return _Ious(costs, torch.arange(rows.start, rows.stop, device=parts[0].device), FoldedRows(torch.cat(parts)))

    def _unfold(self, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """Places that lie in columns [...] of the folds of gts, and their IoUs, [..., FOLD]."""
        place = unfold(column, self.maxima.values.shape[1]) + self.costs.gts.image[row][..., None] * self.costs.stride
        return place, self.costs.iou(row[..., None], place)

    def largest(self, width: int) -> tuple[Tensor, Tensor]:
        """The largest IoUs of each gt and their places, [g, w], in any order."""
        place, iou = (t.flatten(1) for t in self._unfold(self.row[:, None], self.maxima.largest(width)))
        top = iou.topk(min(width, iou.shape[1]), dim=1, sorted=False)
        return top.values, place.gather(1, top.indices)

    def at_least(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Row (of the table) and place, [m] each, of IoUs that reach their gt's threshold [g, 1] (> -inf)."""
        row, column = self.maxima.at_least(threshold)
        place, iou = self._unfold(self.row[row], column)
        which, step = (iou >= threshold[row]).nonzero().unbind(1)
        return row[which], place[which, step]


def _select(costs: Costs, rows: slice, dynamic_k: Tensor, sums: ClassSums) -> Pairs:
    """The pairs that a group of gts selects; sets their dynamic_k [N]."""
    config = costs.config
    ious = _Ious.of(costs, rows)
    iou, place = ious.largest(config.candidate_topk)  # [g, q]
    dynamic_k[rows] = k = count_k(iou.clamp(min=0).double().sum(1), config.k_scale)
    row = ious.row[:, None]
    limit = torch.full((k.shape[0], 1), torch.inf, device=iou.device)

    near, bound = costs.near(rows), None  # [g, w]
    if near is not None:
        near_iou = costs.iou(row, near.clamp(min=0))
        exists = (near >= 0) & costs.can_select(near, near_iou)
        near = near.clamp(min=0)
        bound = costs.bound(row, near, near_iou).masked_fill_(~exists, torch.inf)
        best = bound.topk(min(LISTED * config.max_dynamic_k, bound.shape[1]), dim=1, largest=False, sorted=False)
        limit = _kth_cost(costs, ious.row, near.gather(1, best.indices), best.values < torch.inf, k, sums)
    far = (_reach(limit) >= costs.floor).nonzero()[:, 0]
    if far.numel():
        listed = costs.can_select(place[far], iou[far])
        limit[far] = torch.minimum(limit[far], _kth_cost(costs, ious.row[far], place[far], listed, k[far], sums))
    costs.read(*(t[iou > 0] for t in (row.expand_as(place), place)))

    reach, found = _reach(limit), []
    if near is not None and bound is not None:
        entry, column = (bound <= reach).nonzero().unbind(1)
        found.append((entry, near[entry, column]))
    if far.numel():
        threshold = torch.where(reach >= costs.floor, costs.lowest_iou(reach - costs.floor), torch.inf)
        found.append(ious.at_least(threshold))
    entry, place = found[0]
    if len(found) > 1:
        size = costs.boxes.shape[0]
        key = torch.cat([entry * size + place for entry, place in found]).unique()
        entry, place = key // size, key % size
    return _cheapest(_survivors(costs, rows.start + entry, place, reach[entry, 0], sums), rows, k)


def _kth_cost(costs: Costs, row: Tensor, place: Tensor, listed: Tensor, k: Tensor, sums: ClassSums) -> Tensor:
    """The k-th smallest cost of gts' ``listed`` pairs, [g, 1], or more; +inf where there are fewer.

    Where all classes count, sums over them are formed for the k best by their own class alone.
    """
    entry, column = listed.nonzero().unbind(1)
    row, place = row[entry], place[entry, column]
    pair_terms = costs.terms(row, place, costs.iou(row, place))
    limit, grid = _kth_and_grid(costs.lower(pair_terms), listed, k)
    if not costs.all_classes:
        return limit
    best = (grid <= limit)[listed].nonzero().squeeze(1)
    exact = torch.full_like(pair_terms.own, torch.inf)
    exact[best] = costs.cost(pair_terms.select(best), place[best], sums)
    return _kth_and_grid(exact, listed, k)[0]


def _kth_and_grid(values: Tensor, listed: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the listed places: the k-th smallest of each row, [g, 1], and all of them, [g, w]; +inf elsewhere."""
    grid = torch.full(listed.shape, torch.inf, device=values.device).masked_scatter_(listed, values)
    place = (k[:, None] - 1).clamp(max=listed.shape[1] - 1)
    kth = grid.sort(1).values.gather(1, place)
    return torch.where(k[:, None] <= listed.shape[1], kth, torch.inf), grid


def _survivors(costs: Costs, row: Tensor, place: Tensor, reach: Tensor, sums: ClassSums) -> Pairs:
    """Those of some pairs whose cost can be within ``reach`` [n], with their costs."""
    iou = costs.iou(row, place)
    pair_terms = costs.terms(row, place, iou)
    keep = ((costs.lower(pair_terms) <= reach) & costs.can_select(place, iou)).nonzero().squeeze(1)
    row, place, iou = (t.index_select(0, keep) for t in (row, place, iou))
    return Pairs(row, place, iou, costs.cost(pair_terms.select(keep), place, sums))


def _cheapest(pairs: Pairs, rows: slice, k: Tensor) -> Pairs:
    """The k cheapest of pairs in ascending order of row and place, of each of these gts."""
    order = ((pairs.row << 32) + sortable(pairs.cost)).argsort(stable=True)
    row = pairs.row.index_select(0, order) - rows.start
    start = torch.searchsorted(row, torch.arange(k.shape[0], device=row.device))
    rank = torch.arange(row.shape[0], device=row.device) - start.index_select(0, row)
    return pairs.select(order.index_select(0, (rank < k.index_select(0, row)).nonzero().squeeze(1)))


def _reach(limit: Tensor) -> Tensor:
    """Costs up to a limit and what rounding may add to them (a few ulp of the cost, and of the class sums that it is a difference
    of); below +inf, the cost of a pair that does not exist.
    """
    return (limit + _slack(limit)).clamp(max=COST_LIMIT)


def _slack(limit: Tensor) -> Tensor:
    """What is added to a limit so that rounding (a few ulp of the cost, and of the class sums that it is a difference of)
    never drops a pair that belongs.
    """
    return 1e-3 + 1e-4 * limit.clamp(max=COST_LIMIT)


def _resolve(costs: Costs, claims: Pairs, sums: ClassSums) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one."""
    max_iou = costs.config.conflict == "max_iou"
    place, which = claims.place.unique(return_inverse=True)  # [m], ascending
    limit = _lowest(-claims.iou if max_iou else claims.cost, which, place.shape[0])
    if costs.config.conflict != "matched":
        claims = _rivals(costs, place, limit, sums)
        which = torch.searchsorted(place, claims.place)
    worth = -claims.iou if max_iou else claims.cost
    best = worth == _lowest(worth, which, place.shape[0])[which]
    row = torch.full_like(place, costs.gts.boxes.shape[0]).scatter_reduce(0, which[best], claims.row[best], "amin")
    return claims.select((best & (claims.row == row[which])).nonzero().squeeze(1))


def _lowest(values: Tensor, which: Tensor, size: int) -> Tensor:
    """Minimum of the values of each group, [size]."""
    return torch.full((size,), torch.inf, device=values.device).scatter_reduce(0, which, values, "amin")


def _rivals(costs: Costs, contested: Tensor, limit: Tensor, sums: ClassSums) -> Pairs:
    """All pairs of contested places (ascending) that may be worth as little as ``limit`` [m]."""
    max_iou, gts = costs.config.conflict == "max_iou", costs.gts
    reach = limit if max_iou else _reach(limit)
    threshold = -limit if max_iou else costs.lowest_iou(reach)
    image = contested // costs.stride
    starts = torch.tensor(gts.starts, device=image.device)
    counts = starts.diff()[image]
    found = []
    for part in blocks(0, contested.shape[0], int(counts.max())):
        which = torch.repeat_interleave(torch.arange(part.start, part.stop, device=image.device), counts[part])
        ends = counts[part].cumsum(0)
        row = starts[image[which]] + torch.arange(which.shape[0], device=image.device) - (ends - counts[part])[which - part.start]
        iou = costs.iou(row, contested[which])
        near = (iou >= threshold[which]).nonzero().squeeze(1)
        found.append((row[near], which[near], iou[near]))
    row, which, iou = (torch.cat(column) for column in zip(*found, strict=True))
    place = contested[which]
    return Pairs(row, place, iou, -iou) if max_iou else _survivors(costs, row, place, reach[which], sums)
