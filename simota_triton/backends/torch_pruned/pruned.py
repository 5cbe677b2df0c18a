"""The pruning: which pairs can be among the k cheapest of a gt, and who gets a prior that several want.

Gts are taken in groups. (1) Their IoUs with all priors of their image are formed a block at a time, and only
maxima over a few priors are kept; the largest IoUs, which ``dynamic_k`` is the sum of, are found through
those. (2) The priors near a gt's centre, outside of which the centre term or the penalty alone costs
``Costs.floor``, are listed and ranked by their cost without its class term; the k-th smallest cost of the
best few bounds the true one from above. (3) Only pairs whose lower bound stays below survive: near ones, and,
where the limit is above the floor, those of a large IoU. Sums over all classes are formed for these alone.
Rounding is covered by :func:`~.pairs.loosened`, which only ever keeps more pairs.

Memory: O(B * P + N * q + a group's maxima and near priors + surviving pairs), whatever G * P is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import SimOTAConfig
from ...matching import count_k, key_index, pack_key
from ...problem import Problem
from ...terms import COST_LIMIT
from ..gts import Gts, blocks, smallest_of_each, take
from .block_maxima import FOLD, FoldedRows, fold, largest, unfold
from .pairs import ClassSums, Costs, NotFinite, Pairs, loosened

GROUP_PAIRS = 1 << 21
"""(gt, prior) pairs of a group: the larger the groups, the fewer small operations there are."""

LISTED = 2
"""Priors that the first bound is taken from, for each that may be selected."""


def match(problem: Problem, config: SimOTAConfig, gts: Gts, claims: Tensor) -> tuple[Tensor, Pairs]:
    """dynamic_k of the real gts, and the pairs that are left once conflicts are resolved; counts ``claims``
    [B * P]. Optimistic first, see :class:`Costs`.
    """
    try:
        return _match(Costs(problem, config, gts, careful=False), claims)
    except NotFinite:
        return _match(Costs(problem, config, gts, careful=True), claims.zero_())


def _match(costs: Costs, claims: Tensor) -> tuple[Tensor, Pairs]:
    """dynamic_k of the real gts, and the pairs that are left once conflicts are resolved; counts ``claims``
    [B * P].

    Raises:
        NotFinite: See :meth:`Costs.check`.
    """
    gts, sums = costs.gts, ClassSums(costs)
    k = torch.ones_like(gts.packed)
    size = max(1, GROUP_PAIRS // costs.stride)
    groups = [slice(start, min(start + size, k.shape[0])) for start in range(0, k.shape[0], size)]
    picked = Pairs.concatenate([_select(costs, rows, k, sums) for rows in groups])
    costs.check()  # conflicts are resolved by comparing costs, which a NaN among them has no part in
    flat = gts.image.index_select(0, picked.row) * costs.problem.shape[1] + picked.prior
    claims.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    contested = claims.index_select(0, flat) > 1
    several = contested.nonzero().squeeze(1)
    if several.numel():
        single = (~contested).nonzero().squeeze(1)
        picked = Pairs.concatenate([picked.select(single), _resolve(costs, picked.select(several), sums)])
        costs.check()
    if costs.config.min_positives:
        picked = _rescue(costs, picked, sums)
        costs.check()
    return k, picked


class _Ious(NamedTuple):
    """IoUs of some gts with all priors of their image, of which the maxima of a fold are kept."""

    costs: Costs
    row: Tensor
    maxima: FoldedRows

    @staticmethod
    def of(costs: Costs, rows: slice) -> _Ious:
        """Of gts ``rows``."""
        row = torch.arange(rows.start, rows.stop, dtype=torch.int64, device=costs.gts.boxes.device)
        maxima = torch.empty((row.shape[0], costs.stride // FOLD), dtype=torch.float32, device=row.device)
        blocks = list(costs.gts.blocks(rows, costs.stride))
        # one piece of memory for all blocks: fresh pages take longer than what is computed in them
        most = max(part.stop - part.start for _, part in blocks)
        work = torch.empty((3, most, costs.stride), dtype=torch.float32, device=row.device)
        for image, part in blocks:
            fold(
                costs.iou_block(image, part, work),
                out=maxima[part.start - rows.start : part.stop - rows.start],
            )
        return _Ious(costs, row, FoldedRows(maxima))

    def largest(self, width: int) -> tuple[Tensor, Tensor]:
        """The largest IoUs of each gt and their priors, [g, w], in any order."""
        prior = unfold(self.maxima.largest(width)[1], self.maxima.values.shape[1]).flatten(1)
        top, which = largest(self.costs.iou(self.row[:, None], prior), width)
        return top, prior.gather(1, which)

    def at_least(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Row of the table and prior, [m] each, of IoUs that reach their gt's threshold [g, 1] (> -inf)."""
        entry, column = self.maxima.at_least(threshold)
        prior = unfold(column, self.maxima.values.shape[1])
        which, step = (
            (self.costs.iou(self.row[entry][:, None], prior) >= threshold[entry]).nonzero().unbind(1)
        )
        return entry[which], prior[which, step]


def _select(costs: Costs, rows: slice, dynamic_k: Tensor, sums: ClassSums) -> Pairs:
    """The pairs that a group of gts selects; sets their dynamic_k [N]."""
    config = costs.config
    ious = _Ious.of(costs, rows)
    iou, best = ious.largest(config.candidate_topk)  # [g, q] each
    dynamic_k[rows] = k = count_k(iou, config.k_scale)  # [g]
    limit = torch.full((k.shape[0], 1), torch.inf, dtype=torch.float32, device=iou.device)  # [g, 1]

    row, listed = ious.row[:, None], costs.near(rows)
    if listed is not None:
        near, near_iou, bound = listed  # [g, w] each
        where = _spread_lowest(bound, LISTED * config.max_dynamic_k)
        limit = _kth_cost(costs, row, near.gather(1, where), near_iou.gather(1, where), k, sums)
    few = (limit == torch.inf).nonzero()[:, 0]
    if few.numel():
        limit[few] = _kth_cost(costs, row[few], best[few], iou[few], k[few], sums)

    most = loosened(limit)
    entry, prior, pair_iou = (
        torch.zeros(0, dtype=dtype, device=k.device) for dtype in (k.dtype, k.dtype, iou.dtype)
    )
    if listed is not None:
        which = (bound <= most).flatten().nonzero().squeeze(1)
        entry, prior, pair_iou = (
            which // bound.shape[1],
            take(near.flatten(), which),
            take(near_iou.flatten(), which),
        )
    threshold = costs.lowest_iou(most - costs.floor)
    far = (threshold <= 1).squeeze(1)
    if bool(far.any()):
        others, twice = ious.at_least(threshold), far.index_select(0, entry)
        single, several = (~twice).nonzero().squeeze(1), twice.nonzero().squeeze(1)
        key = torch.cat(
            [entry[several] * costs.stride + prior[several], others[0] * costs.stride + others[1]]
        ).unique()
        entry, prior = (
            torch.cat([entry[single], key // costs.stride]),
            torch.cat([prior[single], key % costs.stride]),
        )
        pair_iou = costs.iou(rows.start + entry, prior)
    pairs = _cheapest(
        _within(costs, rows.start + entry, prior, pair_iou, take(most.flatten(), entry), sums), rows, k
    )
    which = (iou > 0).flatten().nonzero().squeeze(1)
    costs.read(rows.start + which // iou.shape[1], take(best.flatten(), which), sums)
    return pairs


def _spread_lowest(bound: Tensor, width: int) -> Tensor:
    """Where low costs are: the lowest of each of ``width`` combs of a row [g, w], [g, width]; a tenth of
    topk's time.
    """
    size = bound.shape[1]
    first = torch.arange(min(width, size), dtype=torch.int64, device=bound.device)
    teeth = -(-size // first.shape[0])
    combs = F.pad(bound, (0, teeth * first.shape[0] - size), value=torch.inf).view(-1, teeth, first.shape[0])
    # the first of equals: never padding, whose teeth are the last
    return combs.min(1).indices * first.shape[0] + first


def _kth_cost(costs: Costs, row: Tensor, prior: Tensor, iou: Tensor, k: Tensor, sums: ClassSums) -> Tensor:
    """The k-th smallest cost of pairs of gts [g, 1] and priors [g, w], [g, 1], or more; +inf where there are
    fewer.

    Where all classes count, it is the largest cost of the k best by their own class, so that no more sums are
    formed.
    """
    pair_terms, hidden = costs.terms(row, prior, iou.clamp(min=0)), costs.hidden(row, prior, iou)
    lower = costs.lower(pair_terms).masked_fill_(hidden > 0, torch.inf)  # whose logits may be NaN
    last = (k[:, None] - 1).clamp(max=prior.shape[1] - 1)
    limit = torch.where(k[:, None] <= prior.shape[1], lower.sort(1).values.gather(1, last), torch.inf)
    if not costs.all_classes:
        return limit
    best = (lower <= limit.clamp(max=COST_LIMIT)).flatten().nonzero().squeeze(1)
    row, prior = (t.flatten().index_select(0, best) for t in (row.expand_as(prior), prior))
    exact = torch.full_like(lower, -torch.inf)
    exact.view(-1).index_copy_(0, best, costs.cost(pair_terms.select(best), row, prior, sums))
    return torch.where(limit < torch.inf, exact.amax(1, keepdim=True), torch.inf)


def _within(costs: Costs, row: Tensor, prior: Tensor, iou: Tensor, most: Tensor, sums: ClassSums) -> Pairs:
    """Those of some pairs whose cost can be within ``most`` [n], with their costs."""
    pair_terms = costs.terms(row, prior, iou)
    keep = (costs.lower(pair_terms) + costs.hidden(row, prior, iou) <= most).nonzero().squeeze(1)
    row, prior, iou = (t.index_select(0, keep) for t in (row, prior, iou))
    return Pairs(row, prior, iou, costs.cost(pair_terms.select(keep), row, prior, sums))


def _cheapest(pairs: Pairs, rows: slice, k: Tensor) -> Pairs:
    """The k cheapest pairs of each of these gts; those of a gt come in ascending order of their priors."""
    return pairs.select(smallest_of_each(pairs.row - rows.start, pairs.cost, k))


def _resolve(costs: Costs, claims: Pairs, sums: ClassSums) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one; rows ascend."""
    max_iou = costs.config.conflict == "max_iou"
    place, which = costs.places(claims.row, claims.prior).unique(return_inverse=True)  # [m], ascending
    worth = -claims.iou if max_iou else claims.cost
    if costs.config.conflict != "matched":
        limit = torch.full(place.shape, torch.inf, dtype=torch.float32, device=worth.device).scatter_reduce_(
            0, which, worth, "amin"
        )
        claims, which = _rivals(costs, place, limit, sums)
        worth = -claims.iou if max_iou else claims.cost
    key = pack_key(
        worth, torch.arange(worth.shape[0], dtype=torch.int64, device=worth.device)
    )  # of equals the first, whose row is the smallest
    best = torch.full_like(place, torch.iinfo(place.dtype).max).scatter_reduce_(0, which, key, "amin")
    return claims.select(key_index(best))


def _rivals(costs: Costs, contested: Tensor, limit: Tensor, sums: ClassSums) -> tuple[Pairs, Tensor]:
    """All pairs of contested places (ascending) that may be worth as little as ``limit`` [m], and whose place
    each is about; of each place, rows ascend.
    """
    max_iou, gts = costs.config.conflict == "max_iou", costs.gts
    threshold = -limit if max_iou else costs.lowest_iou(loosened(limit))
    image, prior = contested // costs.stride, contested % costs.stride
    starts = torch.tensor(gts.starts, dtype=torch.int64, device=image.device)
    first, count = starts.index_select(0, image), starts.diff().index_select(0, image)
    found = []
    for part in blocks(0, contested.shape[0], int(count.max())):
        number = count[part]
        which = torch.repeat_interleave(number)
        row = (first[part] - number.cumsum(0) + number).index_select(0, which)
        row += torch.arange(which.shape[0], dtype=torch.int64, device=image.device)
        which += part.start
        iou = costs.iou(row, prior.index_select(0, which))
        near = (iou >= threshold.index_select(0, which)).nonzero().squeeze(1)
        found.append(tuple(t.index_select(0, near) for t in (row, which, iou)))
    row, which, iou = (torch.cat(column) for column in zip(*found, strict=True))
    prior = prior.index_select(0, which)
    cost = -iou if max_iou else costs.cost(costs.terms(row, prior, iou), row, prior, sums)
    return Pairs(row, prior, iou, cost), which


def _rescue(costs: Costs, won: Pairs, sums: ClassSums) -> Pairs:
    """The pairs that are left, one a prior, once gts that are short of positives have taken some; see
    ``matching.rescue``.
    """
    device, least, num_priors = won.row.device, costs.config.min_positives, costs.problem.shape[1]
    count = torch.bincount(won.row, minlength=costs.gts.packed.shape[0])
    short = (count < least).nonzero().squeeze(1)
    if not short.numel():
        return won
    one = torch.ones(1, dtype=torch.int64, device=device)
    # row of the gt that has the prior
    owner = torch.full((costs.problem.shape[0], costs.stride), -1, dtype=torch.int64, device=device)
    owner.view(-1).scatter_(0, costs.places(won.row, won.prior), won.row)
    gained = [won]
    for gt in short.tolist():
        row, prior, owned = (
            one * gt,
            torch.arange(num_priors, dtype=torch.int64, device=device),
            owner[int(costs.gts.image[gt])],
        )
        iou = costs.iou(row, prior)
        prior = (costs.hidden(row, prior, iou) == 0).nonzero().squeeze(1)  # [s], those that it may take
        for _ in range(least - int(count[gt])):
            has = owned.index_select(0, prior)
            spared = prior[(has < 0) | (count[has] > least)]
            if not spared.numel():
                break
            row, near = (one * gt).expand_as(spared), iou.index_select(0, spared)
            most = loosened(_kth_cost(costs, row[None], spared[None], near[None], one, sums)).view(-1)
            taken = _cheapest(_within(costs, row, spared, near, most, sums), slice(gt, gt + 1), one)
            if not taken.row.numel():
                break
            before = owned.index_select(0, taken.prior)
            count[before[before >= 0]] -= 1
            count[gt] += 1
            owned.index_copy_(0, taken.prior, taken.row)
            gained.append(taken)
    pairs = Pairs.concatenate(gained)
    stays = owner.view(-1).index_select(0, costs.places(pairs.row, pairs.prior)) == pairs.row
    return pairs.select(stays.nonzero().squeeze(1))
