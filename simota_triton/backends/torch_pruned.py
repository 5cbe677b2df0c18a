"""SimOTA in plain PyTorch for CPUs, by exact pruning: costs only for the pairs that can still be among the k cheapest.

For each gt the IoUs with the image's candidates are formed, a block of gts at a time. They give ``dynamic_k`` and, through
a lower bound of the cost that needs nothing but the IoU and the penalty, a shortlist of the most promising priors. The
k-th smallest cost of the shortlist bounds the gt's true one from above: a gt whose shortlist ends beyond that bound is
done, the others get a longer shortlist whose bound knows the centre prior too. Sums over all classes are formed for the
few priors that survive. Rounding is covered by :func:`_slack`, which only ever keeps more pairs.

Memory: O(B * P + N * q + BLOCK_PAIRS), whatever G * P is.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..config import SimOTAConfig
from ..inputs import Problem
from ..matching import Matching, count_k, pack_key
from ..terms import COST_LIMIT
from .pairs import Costs, Gts, Pairs, blocks

SHORTLIST = 32
"""First length of a shortlist: enough for 99 % of the gts of the named workloads."""

GROWTH = 8
"""Each further round is this much longer."""

FOLD = 16
"""Elements that the first pass of :func:`_largest` folds into one."""


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
        costs = Costs(problem, config, gts)
        dynamic_k[gts.packed], picked = _select(costs)
        flat = costs.flat(picked.row, picked.prior)
        claims.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
        contested = claims[flat] > 1
        if bool(contested.any()):
            picked = Pairs.concatenate([picked[~contested], _resolve(costs, picked[contested])])
            flat = costs.flat(picked.row, picked.prior)
        gt_index[flat] = gts.slot[picked.row]
        matched_iou[flat] = picked.iou
    return Matching(
        gt_index=gt_index.view(batch, num_priors),
        matched_iou=matched_iou.view(batch, num_priors),
        dynamic_k=dynamic_k if problem.gts.padded_shape is None else dynamic_k.view(problem.gts.padded_shape),
        claims=claims.view(batch, num_priors),
    )


def _select(costs: Costs) -> tuple[Tensor, Pairs]:
    """dynamic_k of every real gt, and the pairs it selects."""
    width = costs.config.max_dynamic_k
    todo = torch.arange(costs.gts.boxes.shape[0], device=costs.gts.boxes.device)
    dynamic_k = torch.ones_like(todo)
    picked: list[Pairs] = []
    length, first_round = max(SHORTLIST, 2 * width), True
    while todo.numel():
        prior, iou, last = _shortlist(costs, todo, length, dynamic_k if first_round else None)
        k = dynamic_k[todo, None]
        cost, limit = _costs_up_to_kth(costs, todo, prior, iou, k)
        done = last > limit + _slack(limit)  # [m, 1]
        chosen = pack_key(cost, prior.clamp(min=0)).topk(width, dim=1, largest=False, sorted=True).indices
        rank = torch.arange(width, device=todo.device)
        taken = done & (rank < k) & (cost.gather(1, chosen) < torch.inf)
        columns = (value.gather(1, chosen)[taken] for value in (todo[:, None].expand_as(prior), prior, iou, cost))
        picked.append(Pairs(*columns))
        todo = todo[~done[:, 0]]
        length, first_round = length * GROWTH, False
    return dynamic_k, Pairs.concatenate(picked)


def _shortlist(costs: Costs, todo: Tensor, length: int, dynamic_k: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The most promising priors of gts ``todo`` [m]; the first round ranks without the centre prior and sets dynamic_k.

    Returns:
        prior: [m, length] int64, -1 past the end.
        iou: [m, length].
        last: [m, 1], what any prior that is not listed costs at least; +inf where all are.
    """
    first_round = dynamic_k is not None
    device = todo.device
    prior = torch.full((todo.shape[0], length), -1, dtype=torch.int64, device=device)
    iou = torch.zeros((todo.shape[0], length), device=device)
    last = torch.full((todo.shape[0], 1), torch.inf, device=device)
    starts = torch.searchsorted(todo, torch.tensor(costs.gts.starts, device=device)).tolist()
    for image, (start, stop) in enumerate(pairwise(starts)):
        candidates = costs.candidates[image]
        size = candidates.index.shape[0]
        if not size:
            continue
        for part in blocks(start, stop, size):
            rows = todo[part]
            pair_iou = costs.iou(image, rows)  # [g, n]
            exists = costs.exists(image, rows)
            if dynamic_k is not None:
                pool = pair_iou if exists is None else torch.where(exists, pair_iou, 0.0)
                top = _largest(pool, costs.config.candidate_topk)[0]
                dynamic_k[rows] = count_k(top.double().sum(1), costs.config.k_scale)
            bound = costs.bound(pair_iou, candidates.priors, rows[:, None], center=not first_round)
            if exists is not None:
                bound = torch.where(exists, bound, torch.inf)
            if candidates.selectable is not None:
                bound = torch.where(candidates.selectable, bound, torch.inf)
            lowest, where = _largest(-bound, length)
            found = lowest.shape[1]
            listed = lowest > -torch.inf
            prior[part, :found] = torch.where(listed, candidates.index[where], -1)
            iou[part, :found] = pair_iou.gather(1, where)
            if found < size:
                last[part] = -lowest[:, -1:]
    return prior, iou, last


def _costs_up_to_kth(costs: Costs, todo: Tensor, prior: Tensor, iou: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Costs of the listed pairs that can be among the k cheapest, [m, length], +inf for the others; and the k-th, [m, 1].

    Where all classes count, the pairs are ranked by their own class first: the k best of them give an upper bound, and
    only the pairs below it need the sum over classes.
    """
    listed = prior >= 0
    pair = listed.nonzero()[:, 0], prior[listed], iou[listed]
    pair = todo[pair[0]], *pair[1:]

    def grid(values: Tensor, fill: float = torch.inf) -> Tensor:
        return torch.full_like(iou, fill).masked_scatter_(listed, values)

    cost = grid(costs.cost(*pair, own_class_only=True))
    limit = _kth(cost, k)
    if not costs.all_classes:
        return cost, limit
    exact = torch.full_like(pair[2], torch.inf)
    wanted = torch.zeros_like(exact, dtype=torch.bool)
    for _ in range(2):
        new = (cost <= limit + _slack(limit))[listed] & ~wanted
        wanted = wanted | new
        exact[new] = costs.cost(*(value[new] for value in pair))
        limit = _kth(grid(exact), k)
    return grid(exact), limit


def _kth(cost: Tensor, k: Tensor) -> Tensor:
    """The k-th smallest of each row, [m, length] and [m, 1] -> [m, 1]."""
    return cost.topk(int(k.max()), dim=1, largest=False, sorted=True).values.gather(1, k - 1)


def _slack(limit: Tensor) -> Tensor:
    """What is added to a limit so that rounding (a few ulp of the cost, and of the class sums it is the difference of)
    never drops a pair that belongs."""
    return 1e-3 + 1e-4 * limit.clamp(max=COST_LIMIT)


def _largest(values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` largest of each row, descending, and where they are: [g, n] -> [g, width] (or all n, if fewer).

    A long row is folded first: the largest of it lie in the columns of a [FOLD, n / FOLD] view with the largest maxima.
    topk's time is that of its length, so this is worth about a factor of FOLD / 3.
    """
    size = values.shape[1]
    folds = -(-size // FOLD)
    if folds <= 2 * width:
        return values.topk(min(width, size), dim=1)
    padded = torch.nn.functional.pad(values, (0, folds * FOLD - size), value=-torch.inf)
    column = padded.view(-1, FOLD, folds).amax(1).topk(width, dim=1, sorted=False).indices  # [g, width]
    where = (column[:, None] + folds * torch.arange(FOLD, device=values.device)[:, None]).flatten(1)  # [g, FOLD * width]
    top = padded.gather(1, where).topk(width, dim=1)
    return top.values, where.gather(1, top.indices)


def _resolve(costs: Costs, claims: Pairs) -> Pairs:
    """The pair that wins each contested prior, given all pairs that selected one."""
    conflict, gts = costs.config.conflict, costs.gts
    flat = costs.flat(claims.row, claims.prior)
    prior, which = flat.unique(return_inverse=True)  # [m], ascending
    worth = -claims.iou if conflict == "max_iou" else claims.cost
    limit = _lowest(worth, which, prior.shape[0])
    if conflict != "matched":
        rivals = _rivals(costs, prior, limit)
        if conflict == "all":
            rivals = Pairs(rivals.row, rivals.prior, rivals.iou, costs.cost(rivals.row, rivals.prior, rivals.iou))
        claims, which = rivals, torch.searchsorted(prior, costs.flat(rivals.row, rivals.prior))
        worth = -claims.iou if conflict == "max_iou" else claims.cost
        limit = _lowest(worth, which, prior.shape[0])
    best = worth == limit[which]
    row = torch.full_like(prior, gts.boxes.shape[0]).scatter_reduce(0, which[best], claims.row[best], "amin")
    return claims[best & (claims.row == row[which])]


def _lowest(values: Tensor, which: Tensor, size: int) -> Tensor:
    """Minimum of the values of each group, [size]."""
    return torch.full((size,), torch.inf, device=values.device).scatter_reduce(0, which, values, "amin")


def _rivals(costs: Costs, contested: Tensor, limit: Tensor) -> Pairs:
    """All pairs of contested priors (index in the batch, ascending) that may be worth as little as ``limit``, cost unset."""
    num_priors, max_iou = costs.problem.shape[1], costs.config.conflict == "max_iou"
    found: list[Pairs] = []
    for image in (contested // num_priors).unique().tolist():
        candidates = costs.candidates[image]
        mine = (contested // num_priors == image).nonzero().squeeze(1)
        prior = contested[mine] - image * num_priors
        which = torch.searchsorted(candidates.index, prior)
        for part in blocks(costs.gts.starts[image], costs.gts.starts[image + 1], prior.shape[0]):
            rows = torch.arange(part.start, part.stop, device=contested.device)
            iou = costs.iou(image, rows, which)  # [g, m]
            low = -iou if max_iou else costs.bound(iou, candidates.priors[which], rows[:, None], center=True)
            keep = low <= limit[mine] + (0.0 if max_iou else _slack(limit[mine]))
            exists = costs.exists(image, rows, which)
            row, column = (keep if exists is None else keep & exists).nonzero().unbind(1)
            found.append(Pairs(rows[row], prior[column], iou[row, column], torch.empty_like(iou[row, column])))
    return Pairs.concatenate(found)
