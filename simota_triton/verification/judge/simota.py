"""Intervals of costs, and what SimOTA can make of them.

The slack of a pair's cost, before the penalty (``cost_intervals``):

* 1e-5 * |cost|: rounding of the terms and of their sum (a relative error of some ulp each), and 1e-34 where
  they underflow.
* 1e-6 * iou_weight: the IoU's own error. Corners are exact inputs, so differences, areas, union and quotient
  are at most 16 roundings, 16 * 2^-24 = 9.5e-7 relative, which a logarithm makes absolute (and 1 - GIoU, of
  size 1, too).
* 1e-6 * (what the class term sums and subtracts): the term is background - background of the gt's class +
  own, so its error follows the background, not the difference. For the gt's class alone: the BCE's summands,
  softplus(z).
* Probabilities are float32 by definition, but a sigmoid may differ by 2 ulp from another's. log(1 - p)
  magnifies that near p = 1 (1 ulp is the step from 15.9 to the clamp at 100), so the class term is evaluated
  at p +- 2 ulp. For "joint" the product of two sigmoids moves by 2 ulp and its root by 1: a product below
  1e-38 keeps few bits.
* The IoU moves by 4 ulp in the class and IoU terms, which covers targets near p where a relative bound means
  nothing.
* The distance in the centre prior moves by 4 ulp, which ``center_base ** distance`` magnifies by
  distance * log(base).

Penalised costs are rounded to float32 by definition, so their interval is rounded too: it is a set of grid
points. Costs are clamped at 3e38. What is selectable is decided in float32 by exact comparisons: no slack at
all.

``dynamic_k`` may be floor(k_scale * (sum +- 1e-5)). With the k that came back, a pair (g, p)

* must be selected if fewer than k other pairs of g could rank before it (their low end <= its high end),
* may be selected if fewer than k other pairs rank before it for certain (their high end < its low end),

and as many pairs are selected as the ks ask for. Equal costs of equal inputs are near-ties here; their order
is tested elsewhere.

With ``min_positives`` an answer is what two steps left behind. It is accepted only if an assignment before
the second one is found that the first one could have given by all of the above, and from which the gts, each
in its turn, can have taken exactly the priors that they have: each of them one that could be spared then, and
that no other such prior was certainly cheaper than; and nobody was left short while there was one. Priors
whose first gt is a near-tie are tried either way, as many at once as ``MAX_TRIALS`` allows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import reference, terms
from ...boxes import IOU_ERROR
from ...config import MAX_TOPK, SimOTAConfig
from ...matching import Matching, dynamic_k_matching
from ...problem import Problem
from .common import ULP, judge_values, names, no_pairs

SUM_ERROR = 1e-5
UNDERFLOW = 1e-34
"""What float32 may lose below its smallest normal number, 1.2e-38, times the weights and the logarithms of at
most 100 that a product which underflowed is multiplied by.
"""
MAX_TRIALS = 200
"""Assignments of an image before ``min_positives`` that are tried, one after the other, until one explains
the answer.
"""


class Intervals(NamedTuple):
    """Bounds of float32 costs, [B, G, P] float64, +inf where the gt may not take the prior, and the float64
    IoU.
    """

    low: Tensor
    high: Tensor
    iou: Tensor


def judge_simota(result: Any, problem: Problem, config: SimOTAConfig) -> tuple[Matching, list[str]]:
    """The float64 definition's matching, and a line for everything in ``result`` that no rounding explains;
    gts of ``problem`` are sanitised.
    """
    cost, pool_iou, gt_mask = reference.cost_matrix(problem, config, torch.float64)
    before, expected = (
        dynamic_k_matching(
            cost, pool_iou, gt_mask=gt_mask, candidate_topk=config.candidate_topk, k_scale=config.k_scale,
            conflict=config.conflict, min_positives=least,
        )
        for least in (0, config.min_positives)
    )  # fmt: skip
    expected = expected._replace(dynamic_k=problem.gts.unpad(expected.dynamic_k))
    if result.gt_index.shape != expected.gt_index.shape or result.dynamic_k.shape != expected.dynamic_k.shape:
        return expected, []
    bounds = cost_intervals(problem, config, cost)
    row, _ = problem.gts.padded_rows()
    k = (
        result.dynamic_k.reshape(-1)[row]
        if row.numel()
        else torch.zeros(row.shape, dtype=torch.int64, device=row.device)
    )
    k = torch.where(gt_mask, k, 0)
    wrong = _judge_k(k, pool_iou, gt_mask, config)
    mask = problem.gts.mask
    if mask is not None and bool((result.dynamic_k.reshape(-1)[~mask] != 0).any()):
        wrong.append("dynamic_k: padding, or a row that no image owns, asks for priors")
    wrong += _judge_priors(result, k, bounds, before.gt_index, config)
    return expected, wrong + judge_values(result, problem, bounds.iou, IOU_ERROR)


def cost_intervals(problem: Problem, config: SimOTAConfig, expected: Tensor) -> Intervals:
    """Bounds of the cost of every pair; ``expected`` is the definition's float64 cost, which they are built
    around.
    """
    problem = problem.sanitised()
    row, gt_mask = problem.gts.padded_rows()
    gt_boxes, gt_centers = problem.gts.boxes[row][:, :, None], problem.gts.centers[row][:, :, None]
    label = problem.gts.labels[row][:, :, None].expand(expected.shape)
    priors, pred = problem.priors[None, None], problem.pred_boxes.float()[:, None].double()
    scores, nudged = _scores(problem, config)

    def at_label(values: Tensor) -> Tensor:
        return values.transpose(1, 2).gather(1, label)

    def largest(moves: Iterable[Tensor]) -> Tensor:
        return torch.stack([move.abs() for move in moves]).amax(0)

    def composed(scores: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
        """Class and IoU terms with their weights, as the definition composes them."""
        cls = terms.class_cost(at_label(scores), iou, config)
        if config.cls_classes == "all":
            negatives = terms.background_cost(scores, config).sum(2)[:, None]
            cls = terms.swap_class(negatives, terms.background_cost(at_label(scores), config), cls)
        return cls * config.cls_weight, terms.iou_cost(
            pred, gt_boxes.double(), iou, config
        ) * config.iou_weight

    iou = terms.pair_iou(pred, gt_boxes.double(), config)
    cls, iou_term = composed(scores, iou)
    base = cls + iou_term
    center_slack: Tensor | float = 0.0
    if config.center_weight:
        center = terms.center_cost(priors.double(), gt_centers.double(), config) * config.center_weight
        distance = (priors[..., :2].double() - gt_centers.double()).square().sum(-1).sqrt() / priors[..., 2]
        base = base + center
        center_slack = (
            center.clamp(max=terms.COST_LIMIT)
            * 4
            * ULP
            * (distance + abs(config.center_offset))
            * math.log(config.center_base)
        )
    outside = ~terms.in_region(priors, gt_boxes, gt_centers, config.eligible, config.center_radius)
    outside = outside & bool(config.penalty)
    paid = torch.where(outside, (base + config.penalty).float().double(), base).clamp(max=terms.COST_LIMIT)
    # where it is not finite, nothing is selectable
    extra = None if problem.extra_cost is None else problem.extra_cost[row].double()
    if extra is not None:
        paid = (paid + extra).clamp(-terms.COST_LIMIT, terms.COST_LIMIT)
    selectable = expected < torch.inf
    assert torch.equal(torch.where(selectable, paid, torch.inf), expected), (
        "the judge composes another cost than the definition"
    )

    # what the class term adds up, and how far the terms move with p and IoU
    softplus = torch.nn.functional.softplus(scores) if config.score == "logit" else torch.zeros_like(scores)
    negatives = terms.background_cost(scores, config)
    summed = negatives.sum(2)[:, None] if config.cls_classes == "all" else at_label(negatives)
    slack = (
        UNDERFLOW
        + 1e-5 * base.abs().clamp(max=terms.COST_LIMIT)
        + 1e-6 * (config.iou_weight + config.cls_weight * (summed + at_label(softplus)))
        + center_slack
    )
    if nudged:
        per_class = largest(terms.background_cost(moved, config) - negatives for moved in nudged)
        own = terms.class_cost(at_label(scores), iou, config)
        own = largest(terms.class_cost(at_label(moved), iou, config) - own for moved in nudged)
        others = per_class.sum(2)[:, None] - at_label(per_class) if config.cls_classes == "all" else 0.0
        slack = slack + config.cls_weight * (own + others)
    moves = [composed(scores, iou * (1 + ulps * ULP)) for ulps in (-4, 4)]
    slack = slack + largest(moved - cls for moved, _ in moves)
    if config.iou_cost == "log":
        slack = slack + largest(moved - iou_term for _, moved in moves)

    def final(value: Tensor, penalty: float, side: int) -> Tensor:
        value = torch.where(outside, (value + penalty).float().double(), value).clamp(max=terms.COST_LIMIT)
        if extra is not None:  # the sum is rounded
            value = value + extra
            value = (value + side * ULP * value.abs()).clamp(-terms.COST_LIMIT, terms.COST_LIMIT)
        return torch.where(selectable, value, torch.inf)

    # float32 arithmetic adds the rounded one
    paid = torch.tensor(config.penalty, dtype=torch.float32, device="cpu")
    penalties = (config.penalty, float(paid))
    low, high = final(base - slack, min(penalties), -1), final(base + slack, max(penalties), 1)
    return Intervals(low, high, torch.where(gt_mask[:, :, None], iou, 0.0))


def _scores(problem: Problem, config: SimOTAConfig) -> tuple[Tensor, list[Tensor]]:
    """Class scores as the definition takes them, and where a sigmoid of another make could put them, all
    float64.
    """
    logits = problem.cls_logits.dense().contiguous()
    objectness = None if problem.obj_logits is None else problem.obj_logits.dense().contiguous()
    p = terms.class_scores(logits, objectness, config)
    if config.score not in ("sigmoid", "joint"):
        return p.double(), []
    nudged = []
    for end in (
        torch.zeros((), dtype=torch.float32, device=p.device),
        torch.ones((), dtype=torch.float32, device=p.device),
    ):
        if objectness is None:
            moved = p.nextafter(end).nextafter(end)
        else:
            product = logits.float().sigmoid() * objectness.float().sigmoid()
            moved = product.nextafter(end).nextafter(end).sqrt().nextafter(end)
        nudged.append(moved.double())
    return p.double(), nudged


def _judge_k(k: Tensor, pool_iou: Tensor, gt_mask: Tensor, config: SimOTAConfig) -> list[str]:
    top = pool_iou.topk(min(config.candidate_topk, pool_iou.shape[2]), dim=2).values.clamp(min=0).sum(2)
    low, high = (
        ((top + error) * config.k_scale).floor().clamp(min=1).long() * gt_mask
        for error in (-SUM_ERROR, SUM_ERROR)
    )
    wrong = ((k < low) | (k > high)).nonzero().tolist()
    return [
        f"dynamic_k: image {b}, gt {g}: {int(k[b, g])} with a sum of IoUs of {float(top[b, g]):.7f}"
        for b, g in wrong
    ]


def _judge_priors(
    result: Any, k: Tensor, bounds: Intervals, before: Tensor, config: SimOTAConfig
) -> list[str]:
    low, high, iou = bounds
    claims = result.claims.long()
    if low.numel() == 0:
        return no_pairs(result)
    selectable = low < torch.inf

    # who must and who may have selected the prior
    width = min(MAX_TOPK + 1, low.shape[2])
    edge = torch.full((*low.shape[:2], 1), torch.inf, dtype=low.dtype, device=low.device)
    lows = torch.cat([low.topk(width, dim=2, largest=False).values, edge], 2)
    highs = torch.cat([-edge, high.topk(width, dim=2, largest=False).values, edge], 2)
    must = selectable & (high < lows.gather(2, k.clamp(0, width)[..., None]))
    may = selectable & (low <= highs.gather(2, k.clamp(0, width + 1)[..., None]))

    # who may be the answer: the only claimant, or the winner of a conflict
    others_must = must.sum(1, keepdim=True) - must.long() > 0
    alone = may & ~others_must
    if config.conflict == "all":
        wins = selectable & (low <= high.amin(1, keepdim=True))
    elif config.conflict == "matched":
        wins = may & (low <= torch.where(must, high, torch.inf).amin(1, keepdim=True))
    else:
        eligible_iou = torch.where(selectable, iou, -1.0)
        wins = selectable & (eligible_iou >= eligible_iou.amax(1, keepdim=True) - IOU_ERROR)
    conflict = wins & (may.sum(1, keepdim=True) > 1)

    answer = result.gt_index
    unexplained: list[str] = []
    in_range = (answer >= -1) & (answer < low.shape[1])
    if config.min_positives and bool(in_range.all()):
        owners = torch.where((claims > 1)[:, None], conflict, alone & (claims == 1)[:, None])
        answer, unexplained = _before_min_positives(answer, owners, before, bounds, config.min_positives)
    slot = answer.clamp(0, low.shape[1] - 1)[:, None]
    fine = torch.where(claims > 1, conflict.gather(1, slot)[:, 0], alone.gather(1, slot)[:, 0])
    fine = torch.where(answer < 0, ~must.any(1), fine) & in_range & ((claims > 0) == (answer >= 0))
    fine = fine & (claims >= must.sum(1)) & (claims <= may.sum(1))
    wrong = unexplained + [
        f"image {b}, prior {p}: gt {int(answer[b, p])} with {int(claims[b, p])} claims, "
        f"but {names(must[b, :, p])} must and {names(may[b, :, p])} may have selected it, "
        f"{names(conflict[b, :, p])} may win a conflict"
        for b, p in (~fine).nonzero().tolist()
    ]

    # as many selected pairs as asked for, and no gt learns more priors of its own than it asked for
    asked = torch.minimum(k, selectable.sum(2))
    for b in (claims.sum(1) != asked.sum(1)).nonzero().flatten().tolist():
        wrong.append(f"image {b}: {int(claims[b].sum())} pairs selected, {int(asked[b].sum())} asked for")
    sole = torch.zeros_like(k).scatter_add(1, slot[:, 0], ((claims == 1) & in_range).long())
    for b, g in (sole > asked).nonzero().tolist():
        wrong.append(f"image {b}, gt {g}: {int(sole[b, g])} priors of its own, {int(asked[b, g])} asked for")
    return wrong


def _before_min_positives(
    answer: Tensor, owners: Tensor, before: Tensor, bounds: Intervals, least: int
) -> tuple[Tensor, list[str]]:
    """The assignment that ``min_positives`` started from, [B, P], and a line for each image of which none is
    found.

    Args:
        answer: [B, P], the assignment that came back.
        owners: [B, G, P], whether the gt may be the prior's first one.
        before: [B, P], the definition's assignment before ``min_positives``.
        bounds: Of all costs.
        least: ``min_positives``.
    """
    found, wrong = answer.clone(), []
    for b in range(len(answer)):
        for trial in itertools.islice(_first_assignments(answer[b], owners[b], before[b]), MAX_TRIALS):
            if _leads_to(trial, answer[b], bounds.low[b], bounds.high[b], least):
                found[b] = trial
                break
        else:
            wrong.append(
                f"image {b}: no order of its costs leads to these positives by min_positives = {least}"
            )
    return found, wrong


def _first_assignments(answer: Tensor, owners: Tensor, before: Tensor) -> Iterator[Tensor]:
    """Assignments [P] of an image in which every prior has a gt that ``owners`` [G, P] allows: the
    definition's ``before``, then that nearest to ``answer``, then others that differ from these in a few
    priors.
    """
    number = owners.sum(0)

    def allowed(wanted: Tensor, otherwise: Tensor) -> Tensor:
        fits = owners.gather(0, wanted.clamp(min=0)[None])[0] & (wanted >= 0)
        return torch.where(fits, wanted, otherwise)

    any_owner = torch.where(number > 0, owners.int().argmax(0), -1)
    starts = allowed(before, allowed(answer, any_owner)), allowed(answer, allowed(before, any_owner))
    yield from starts
    open_priors = (number > 1).nonzero().flatten().tolist()
    for changes in (1, 2, 3):
        for priors in itertools.combinations(open_priors, changes):
            for gts in itertools.product(*(owners[:, p].nonzero().flatten().tolist() for p in priors)):
                for start in starts:
                    trial = start.clone()
                    trial[list(priors)] = torch.tensor(gts, dtype=torch.int64, device=trial.device)
                    yield trial


def _leads_to(first: Tensor, answer: Tensor, low: Tensor, high: Tensor, least: int) -> bool:
    """Whether gts that take priors by ``min_positives`` can turn the assignment ``first`` [P] of an image
    into ``answer`` [P].
    """
    moved = first != answer
    if bool((answer[moved] < 0).any()):
        return False
    owner, count = first.clone(), torch.bincount(first[first >= 0], minlength=len(low))

    def take(gt: int, left: list[int]) -> bool:
        """Whether the gt can have taken exactly these priors, in some order; if so, it has."""
        if int(count[gt]) >= least:
            return not left
        # it may take, and can be spared
        free = ((owner < 0) | (count[owner.clamp(min=0)] > least)) & (low[gt] < torch.inf)
        if not left:
            return not bool(free.any())
        limit = torch.where(free, high[gt], torch.inf).min()
        for p in left:
            former = int(owner[p])
            if not free[p] or low[gt, p] > limit:
                continue
            for step, new in ((1, gt), (-1, former)):
                owner[p] = new
                count[gt] += step
                if former >= 0:
                    count[former] -= step
                if step > 0 and take(gt, [q for q in left if q != p]):
                    return True
        return False

    return all(take(gt, (moved & (answer == gt)).nonzero().flatten().tolist()) for gt in range(len(low)))
