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
from .folded import ALIGN, FoldedRows
from .pairs import ClassSums, Costs, Pairs

GROUP_PAIRS = 1 << 21
"""(gt, candidate) pairs kept at once, 8 MB: the larger the groups, the fewer small operations there are."""

LISTED = 2
"""Priors that the first bound is taken from, for each that may be selected: with 1, sums over all classes are formed for
2.5 times as many pairs of the named workloads, with 3 for 0.95 times as many."""


def assign(problem: Problem, config: SimOTAConfig) -> Matching:
    """The assignment of a batch; see the module."""
    batch, num_priors, _ = problem.shape
    device = problem.priors.device
    gts = Gts.of(problem)
    dynamic_k = torch.zeros(problem.gts.boxes.shape[0], dtype=torch.int64, device=device)
    won: Pairs | None = None
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=device)
    if gts.packed.numel():
        costs = Costs(problem, config, gts, careful=False)
        dynamic_k[gts.packed], won = _match(costs, claims)
        if not costs.clean():
            costs = Costs(problem, config, gts, careful=True)
            dynamic_k[gts.packed], won = _match(costs, claims.zero_())
    gt_index = torch.full((batch * num_priors,), -1, dtype=torch.int64, device=device)
    matched_iou = torch.zeros(batch * num_priors, device=device)
    if won is not None:
        flat = gts.image[won.row] * num_priors + won.prior
        gt_index[flat] = gts.slot[won.row]
        matched_iou[flat] = won.iou
    return Matching(
        gt_index=gt_index.view(batch, num_priors),
        matched_iou=matched_iou.view(batch, num_priors),
        dynamic_k=dynamic_k if problem.gts.padded_shape is None else dynamic_k.view(problem.gts.padded_shape),
        claims=claims.view(batch, num_priors),
    )


def _match(costs: Costs, claims: Tensor) -> tuple[Tensor, Pairs]:
    """dynamic_k of the real gts, and the pairs that are left once conflicts are resolved; counts ``claims`` [B * P]."""
    k = torch.ones_like(costs.gts.packed)
    picked = Pairs.concatenate([_select(costs, group, k) for group in _groups(costs)])
    flat = costs.flat(picked.row, picked.prior)
    claims.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    contested = claims[flat] > 1
    if bool(contested.any()):
        picked = Pairs.concatenate([picked[~contested], _resolve(costs, picked[contested])])
    return k, picked


class _Table(NamedTuple):
    """A group of gts against the candidates of their images: ranks [r, n], -inf past the end.

    ``candidate`` [images, n] are the candidates, ``image`` [r] the row of it that belongs to a gt; ``rows`` [r] are the gts.
    """

    rows: Tensor
    rank: FoldedRows
    candidate: Tensor
    image: Tensor

    def pairs(self, row: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Gt and prior of entries."""
        return self.rows[row], self.candidate[self.image[row], where]


def _groups(costs: Costs) -> Iterator[list[tuple[int, slice]]]:
    """(image, rows) blocks in groups whose table has at most about ``GROUP_PAIRS`` entries."""
    group: list[tuple[int, slice]] = []
    count = width = 0
    for image, (start, stop) in enumerate(pairwise(costs.gts.starts)):
        size = costs.candidates[image].index.shape[0]
        for rows in blocks(start, stop, size):
            count, width = count + rows.stop - rows.start, max(width, size)
            if group and count * width > GROUP_PAIRS:
                yield group
                group, count, width = [], rows.stop - rows.start, size
            group.append((image, rows))
    yield group


def _select(costs: Costs, group: list[tuple[int, slice]], dynamic_k: Tensor) -> Pairs:
    """The pairs that a group of gts selects; sets their dynamic_k [N]."""
    config, device = costs.config, costs.gts.boxes.device
    rows = torch.arange(group[0][1].start, group[-1][1].stop, device=device)
    width = max(1, -(-max(costs.candidates[image].index.shape[0] for image, _ in group) // ALIGN)) * ALIGN
    values = torch.empty((rows.shape[0], width), device=device)  # first IoUs, then ranks
    candidate = torch.full((len(group), width), -1, dtype=torch.int64, device=device)
    owner = torch.empty_like(rows)
    parts = []
    for i, (image, part) in enumerate(group):
        own, index = slice(part.start - group[0][1].start, part.stop - group[0][1].start), costs.candidates[image].index
        owner[own], candidate[i, : index.shape[0]] = i, index
        values[own, index.shape[0] :] = -torch.inf
        parts.append((image, rows[own], values[own, : index.shape[0]]))
        costs.iou_block(*parts[-1])
    iou, where = FoldedRows(values).largest(config.candidate_topk)
    dynamic_k[rows] = k = count_k(iou.clamp(min=0).double().sum(1), config.k_scale)
    for part_of_image in parts:
        costs.rank_block(*part_of_image)
    table = _Table(rows, FoldedRows(values), candidate, owner)
    row, column = (iou > 0).nonzero().unbind(1)
    counted = table.pairs(row, where[row, column])
    sums = ClassSums(costs, group[0][0], group[-1][0])
    limit = _upper_bound(costs, table, k, sums)
    costs.read(*counted)
    return _cheapest(_survivors(costs, table, limit, sums), rows, k)


def _upper_bound(costs: Costs, table: _Table, k: Tensor, sums: ClassSums) -> Tensor:
    """The k-th smallest cost of the priors of best rank, [r, 1]; +inf where there are fewer.

    Where all classes count, sums over them are formed for the k best by their own class alone.
    """
    rank, where = table.rank.largest(LISTED * costs.config.max_dynamic_k)
    listed = rank > -torch.inf
    row, prior = table.pairs(listed.nonzero()[:, 0], where[listed])
    pair_terms = costs.terms(row, prior, costs.iou(row, prior))
    limit, grid = _kth_and_grid(costs.lower(pair_terms), listed, k)
    if not costs.all_classes:
        return limit
    best = (grid <= limit)[listed]
    exact = torch.full_like(pair_terms.own, torch.inf)
    exact[best] = costs.cost(pair_terms.select(best), row[best], prior[best], sums)
    return _kth_and_grid(exact, listed, k)[0]


def _kth_and_grid(values: Tensor, listed: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the listed places: the k-th smallest of each row, [r, 1], and all of them, [r, w]; +inf elsewhere."""
    grid = torch.full(listed.shape, torch.inf, device=values.device).masked_scatter_(listed, values)
    place = (k[:, None] - 1).clamp(max=listed.shape[1] - 1)
    kth = grid.sort(1).values.gather(1, place)
    return torch.where(k[:, None] <= listed.shape[1], kth, torch.inf), grid


def _survivors(costs: Costs, table: _Table, limit: Tensor, sums: ClassSums) -> Pairs:
    """All pairs whose cost can be as low as their gt's ``limit`` [r, 1], with their costs."""
    reach = limit + _slack(limit)
    entry, where = table.rank.at_least(costs.lowest_rank(reach))
    row, prior = table.pairs(entry, where)
    iou, reach = costs.iou(row, prior), reach[entry, 0]
    pair_terms = costs.terms(row, prior, iou)
    keep = costs.lower(pair_terms) <= reach
    row, prior, iou = row[keep], prior[keep], iou[keep]
    return Pairs(row, prior, iou, costs.cost(pair_terms.select(keep), row, prior, sums))


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
    starts = torch.tensor(gts.starts, device=image.device)
    counts = starts.diff()[image]
    found = []
    for part in blocks(0, contested.shape[0], int(counts.max())):
        place = torch.repeat_interleave(torch.arange(part.start, part.stop, device=image.device), counts[part])
        ends = counts[part].cumsum(0)
        row = starts[image[place]] + torch.arange(place.shape[0], device=image.device) - (ends - counts[part])[place - part.start]
        iou = costs.iou(row, prior[place])
        near = iou >= threshold[place]
        found.append((row[near], place[near], iou[near]))
    row, place, iou = (torch.cat(column) for column in zip(*found, strict=True))
    exists = costs.exists(row, prior[place])
    near = torch.ones_like(row, dtype=torch.bool) if exists is None else exists
    row, place, iou = row[near], place[near], iou[near]
    prior = prior[place]
    if max_iou:
        return Pairs(row, prior, iou, -iou)
    pair_terms = costs.terms(row, prior, iou)
    near = costs.lower(pair_terms) <= reach[place]
    row, prior, iou = row[near], prior[near], iou[near]
    return Pairs(row, prior, iou, costs.cost(pair_terms.select(near), row, prior, ClassSums(costs, 0, costs.problem.shape[0] - 1)))
