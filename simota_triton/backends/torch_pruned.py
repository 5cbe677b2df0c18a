"""SimOTA in plain PyTorch for CPUs, by exact pruning: costs only for the pairs that can still be among the k cheapest.

Gts are taken in groups. (1) Their IoUs with the candidates of their image give ``dynamic_k`` and the few priors of best
rank, where the rank is a lower bound of the cost that needs nothing but the IoU and the penalty. (2) The k-th smallest
cost of those few bounds the true one from above. (3) Only pairs whose lower bound stays below survive; sharper bounds
(the centre prior, the gt's own class) thin them out before sums over all classes are formed. Rounding is covered by
:func:`_slack`, which only ever keeps more pairs.

Memory: O(B * P + N * q + GROUP_PAIRS + surviving pairs), whatever G * P is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import SimOTAConfig
from ..inputs import Problem
from ..matching import Matching, count_k, pack_key
from ..terms import COST_LIMIT
from .candidates import Gts, blocks
from .folded import FoldedRows
from .pairs import Costs, Pairs

GROUP_PAIRS = 1 << 20
"""(gt, candidate) pairs kept at once, 4 MB: fewer, larger groups share the cost of small operations."""


def assign(problem: Problem, config: SimOTAConfig) -> Matching:
    """The assignment of a batch; see the module."""
    batch, num_priors, _ = problem.shape
    device = problem.priors.device
    gts = Gts.of(problem)
    gt_index = torch.full((batch * num_priors,), -1, dtype=torch.int64, device=device)
    matched_iou = torch.zeros(batch * num_priors, device=device)
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=device)
    dynamic_k = torch.zeros(problem.gts.boxes.shape[0], dtype=torch.int64, device=device)
    if gts.packed.numel():
        costs = Costs(problem, config, gts, careful=False)
        k, claims, won = _match(costs)
        if not costs.clean():
            k, claims, won = _match(Costs(problem, config, gts, careful=True))
        dynamic_k[gts.packed] = k
        flat = costs.flat(won.row, won.prior)
        gt_index[flat] = gts.slot[won.row]
        matched_iou[flat] = won.iou
    return Matching(
        gt_index=gt_index.view(batch, num_priors),
        matched_iou=matched_iou.view(batch, num_priors),
        dynamic_k=dynamic_k if problem.gts.padded_shape is None else dynamic_k.view(problem.gts.padded_shape),
        claims=claims.view(batch, num_priors),
    )


def _match(costs: Costs) -> tuple[Tensor, Tensor, Pairs]:
    """dynamic_k of the real gts, claims [B * P], and the pairs that are left once conflicts are resolved."""
    batch, num_priors, _ = costs.problem.shape
    k = torch.ones_like(costs.gts.packed)
    picked = Pairs.concatenate([_select(costs, group, k) for group in _groups(costs)])
    flat = costs.flat(picked.row, picked.prior)
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=flat.device)
    claims.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    contested = claims[flat] > 1
    if bool(contested.any()):
        picked = Pairs.concatenate([picked[~contested], _resolve(costs, picked[contested])])
    return k, claims, picked


class _Block(NamedTuple):
    """Gts of one image against its candidates: rows [g], IoU and rank [g, n]."""

    image: int
    rows: Tensor
    iou: Tensor
    rank: FoldedRows


def _groups(costs: Costs) -> Iterator[list[tuple[int, slice]]]:
    """(image, rows) blocks in groups of at most about ``GROUP_PAIRS`` pairs."""
    group: list[tuple[int, slice]] = []
    pairs = 0
    for image, (start, stop) in enumerate(pairwise(costs.gts.starts)):
        width = costs.candidates[image].index.shape[0]
        for rows in blocks(start, stop, width):
            size = (rows.stop - rows.start) * width
            if group and pairs + size > GROUP_PAIRS:
                yield group
                group, pairs = [], 0
            group.append((image, rows))
            pairs += size
    yield group


def _select(costs: Costs, group: list[tuple[int, slice]], dynamic_k: Tensor) -> Pairs:
    """The pairs that a group of gts selects; sets their dynamic_k [N]."""
    config, device = costs.config, dynamic_k.device
    first, last = group[0][1].start, group[-1][1].stop
    rows = torch.arange(first, last, device=device)
    width = max(config.candidate_topk, config.max_dynamic_k)
    prior = torch.full((last - first, width), -1, dtype=torch.int64, device=device)
    iou = torch.zeros((last - first, width), device=device)
    kept: list[_Block] = []
    counted: list[tuple[Tensor, Tensor]] = []
    for image, part in group:
        index = costs.candidates[image].index
        if not index.shape[0]:
            continue
        block, pool = _block(costs, image, rows[part.start - first : part.stop - first])
        rank, where = block.rank.largest(width)
        own = slice(part.start - first, part.stop - first), slice(0, rank.shape[1])
        prior[own] = torch.where(rank > -torch.inf, index[where], -1)
        iou[own] = block.iou.gather(1, where)
        top, where = (iou[own], where) if pool is None else pool.largest(config.candidate_topk)
        top, where = top[:, : config.candidate_topk], where[:, : config.candidate_topk]
        dynamic_k[part] = count_k(top.double().sum(1), config.k_scale)
        counted.append((block.rows[:, None].expand_as(where).flatten(), index[where].flatten()))
        kept.append(block)
    k = dynamic_k[rows]
    limit = _upper_bound(costs, rows, prior, iou, k)
    for pair in counted:
        costs.read(*pair)
    return _cheapest(_survivors(costs, kept, first, limit), rows, k)


def _block(costs: Costs, image: int, rows: Tensor) -> tuple[_Block, FoldedRows | None]:
    """A block, and its IoUs that count for ``dynamic_k`` where those are not the ranks."""
    candidates = costs.candidates[image]
    iou = costs.iou(candidates.boxes, rows[:, None])
    rank = costs.rank(image, rows, iou)
    exists = costs.exists(rows[:, None], candidates.index)
    pool = iou if exists is None else torch.where(exists, iou, 0.0)
    if exists is not None:
        rank = torch.where(exists, rank, -torch.inf)
    if candidates.selectable is not None:
        rank = torch.where(candidates.selectable, rank, -torch.inf)
    return _Block(image, rows, iou, FoldedRows(rank)), None if rank is iou else FoldedRows(pool)


def _upper_bound(costs: Costs, rows: Tensor, prior: Tensor, iou: Tensor, k: Tensor) -> Tensor:
    """The k-th smallest cost of the listed priors of each gt, [r, w] and [r] -> [r, 1]; +inf where fewer are listed.

    Where all classes count, sums over them are formed for the k best by their own class alone.
    """
    listed = prior >= 0
    pair = rows[:, None].expand_as(prior)[listed], prior[listed], iou[listed]
    cost = _kth_and_grid(costs.cost(*pair, own_class_only=True), listed, k)
    if not costs.all_classes:
        return cost[0]
    best = (cost[1] <= cost[0])[listed]
    exact = torch.full_like(pair[2], torch.inf)
    exact[best] = costs.cost(*(value[best] for value in pair))
    return _kth_and_grid(exact, listed, k)[0]


def _kth_and_grid(values: Tensor, listed: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the listed places: the k-th smallest of each row, [r, 1], and all of them, [r, w]; +inf elsewhere."""
    grid = torch.full(listed.shape, torch.inf, device=values.device).masked_scatter_(listed, values)
    return grid.sort(1).values.gather(1, k[:, None] - 1), grid


def _survivors(costs: Costs, kept: list[_Block], first: int, limit: Tensor) -> Pairs:
    """All pairs whose cost can be as low as their gt's ``limit`` [r, 1], with their costs."""
    reach = limit + _slack(limit)
    threshold = costs.lowest_rank(reach)
    found = []
    for block in kept:
        row, where = block.rank.at_least(threshold[block.rows - first])
        found.append((block.rows[row], costs.candidates[block.image].index[where], block.iou[row, where]))
    none = costs.gts.packed[:0]
    row, prior, iou = (torch.cat(column) for column in zip((none, none, limit[:0, 0]), *found, strict=True))
    if costs.config.center_weight or costs.has_penalty:
        keep = costs.bound(row, prior, iou) <= reach[row - first, 0]
        row, prior, iou = row[keep], prior[keep], iou[keep]
    if costs.all_classes:
        keep = costs.cost(row, prior, iou, own_class_only=True) <= reach[row - first, 0]
        row, prior, iou = row[keep], prior[keep], iou[keep]
    return Pairs(row, prior, iou, costs.cost(row, prior, iou))


def _cheapest(pairs: Pairs, rows: Tensor, k: Tensor) -> Pairs:
    """The k cheapest pairs of each of these gts."""
    order = pack_key(pairs.cost, pairs.prior).argsort()
    order = order[pairs.row[order].argsort(stable=True)]
    row = pairs.row[order] - rows[0]
    start = torch.searchsorted(row, torch.arange(rows.shape[0], device=row.device))
    return pairs[order[torch.arange(row.shape[0], device=row.device) - start[row] < k[row]]]


def _slack(limit: Tensor) -> Tensor:
    """What is added to a limit so that rounding (a few ulp of the cost, and of the class sums that it is a difference of)
    never drops a pair that belongs.
    """
    return 1e-3 + 1e-4 * limit.clamp(max=COST_LIMIT)


def _resolve(costs: Costs, claims: Pairs) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one."""
    max_iou = costs.config.conflict == "max_iou"
    prior, which = costs.flat(claims.row, claims.prior).unique(return_inverse=True)  # [m], ascending
    limit = _lowest(-claims.iou if max_iou else claims.cost, which, prior.shape[0])
    if costs.config.conflict != "matched":
        claims = _rivals(costs, prior, limit)
        which = torch.searchsorted(prior, costs.flat(claims.row, claims.prior))
    worth = -claims.iou if max_iou else claims.cost
    best = worth == _lowest(worth, which, prior.shape[0])[which]
    row = torch.full_like(prior, costs.gts.boxes.shape[0]).scatter_reduce(0, which[best], claims.row[best], "amin")
    return claims[best & (claims.row == row[which])]


def _lowest(values: Tensor, which: Tensor, size: int) -> Tensor:
    """Minimum of the values of each group, [size]."""
    return torch.full((size,), torch.inf, device=values.device).scatter_reduce(0, which, values, "amin")


def _rivals(costs: Costs, contested: Tensor, limit: Tensor) -> Pairs:
    """All pairs of contested priors (index in the batch, ascending) that may be worth as little as ``limit`` [m]."""
    num_priors, max_iou, gts = costs.problem.shape[1], costs.config.conflict == "max_iou", costs.gts
    reach = limit if max_iou else limit + _slack(limit)
    threshold = -limit if max_iou else costs.lowest_iou(reach)
    image, prior = contested // num_priors, contested % num_priors
    boxes = costs.problem.pred_boxes[image, prior].float()
    starts = torch.tensor(gts.starts, device=image.device)
    counts = starts.diff()[image]
    found = []
    for part in blocks(0, contested.shape[0], int(counts.max())):
        place = torch.repeat_interleave(torch.arange(part.start, part.stop, device=image.device), counts[part])
        ends = counts[part].cumsum(0)
        row = starts[image[place]] + torch.arange(place.shape[0], device=image.device) - (ends - counts[part])[place - part.start]
        iou = costs.iou(boxes[place], row)
        near = iou >= threshold[place]
        found.append((row[near], place[near], iou[near]))
    row, place, iou = (torch.cat(column) for column in zip(*found, strict=True))
    exists = costs.exists(row, prior[place])
    near = torch.ones_like(row, dtype=torch.bool) if exists is None else exists
    if not max_iou:
        near &= costs.bound(row, prior[place], iou) <= reach[place]
    row, prior, iou = row[near], prior[place[near]], iou[near]
    return Pairs(row, prior, iou, -iou if max_iou else costs.cost(row, prior, iou))
