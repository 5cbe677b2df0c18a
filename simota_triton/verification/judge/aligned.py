"""Intervals of metrics, and what the task-aligned rule can make of them.

Where a prior lies is decided in float32 by exact comparisons: no slack at all. In the frame of a rotated box
its place is rounded, and a prior so near to an edge that rounding may move it across may lie on either side.
The rest is

* the overlap. An IoU is at most 16 roundings, 16 * 2^-24 relative (``IOU_ERROR``). CIoU subtracts from it
  terms of size 1, whose errors are absolute (``CIOU_ERROR``), and the distance of two centres is a sum of
  coordinates, which is rounded by as much as these are large (``_center_error``). ProbIoU is formed of sums
  without negative terms, whose ends give its ends (``_probiou_bounds``).
* the probability: ``SCORE_ERROR`` relative; below the normal float32 numbers it counts as 0, and near the
  smallest of them it may or may not.
* the metric, score ** alpha * overlap ** beta, of the ends of both intervals, and ``METRIC_ERROR`` relative
  for the powers, whose logarithms are up to 126 where a device forms them so. Below the normal numbers it is
  0, and may be near the smallest of them.
* the target: of the ends of the intervals of the gt's metrics and overlaps, given what the gt owns.

A gt's pair must be selected if fewer than topk others of its pool could rank before it, and may be selected
if fewer than topk others rank before it for certain. Equal metrics of equal inputs are near-ties here; their
order is tested elsewhere. Under ``topk2`` a prior that nobody has in the end must have had a gt that kept
topk2 others which could rank before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...boxes import IOU_ERROR, SMALLEST, box_ciou
from ...config import TaskAlignedConfig
from ...matching import Matching
from ...problem import Problem
from ...rotated import MAX_DISTANCE, in_frame
from ...task_aligned.matching import match
from ...task_aligned.reference import metric_matrix
from ...task_aligned.terms import region_boxes
from .common import ULP, judge_values, names, no_pairs, of_answer

CIOU_ERROR = 3e-6
FRAME_ERROR = 4 * ULP
"""Of a place in the frame of a rotated box, relative to the distance from its centre: a sine, a cosine, and
three roundings.
"""
TURN_ERROR = 4 * ULP
"""Of the sine of the angle between two boxes, relative to 1 and to the angle."""
PROBIOU_ERROR = 6 * ULP
"""Relative error of the sums in ProbIoU."""
SCORE_ERROR = 4 * ULP
METRIC_ERROR = 1e-5
TARGET_ERROR = 1e-6
UNDERFLOW = 1e-34
"""What float32 may lose below its smallest normal number, in an intersection or a target."""


class MetricIntervals(NamedTuple):
    """Bounds of float32 metrics and overlaps, [B, G, P] float64 each; metrics are 0 and overlaps -1 where the
    gt may not take the prior.
    """

    low: Tensor
    high: Tensor
    overlap_low: Tensor
    overlap_high: Tensor


def judge_aligned(result: Any, problem: Problem, config: TaskAlignedConfig) -> tuple[Matching, list[str]]:
    """The float64 definition's matching, and a line for everything in ``result`` that no rounding explains;
    gts of ``problem`` are sanitised.
    """
    metric, overlap, inside, gt_mask = metric_matrix(problem, config, torch.float64)
    expected = match(metric, overlap, inside, config, gt_mask)
    expected = expected._replace(dynamic_k=problem.gts.unpad(expected.dynamic_k))
    if result.gt_index.shape != expected.gt_index.shape or result.dynamic_k.shape != expected.dynamic_k.shape:
        return expected, []
    wrong = [
        f"dynamic_k: {int(got)} at {place}, expected {int(asked)}"
        for place, got, asked in (
            (place, result.dynamic_k[tuple(place)], expected.dynamic_k[tuple(place)])
            for place in (result.dynamic_k != expected.dynamic_k).nonzero().tolist()
        )
    ]
    if not metric.numel():
        nothing = (result.scores != 0).any()
        wrong += no_pairs(result) + ["scores: not 0 where there is no pair"] * int(nothing)
        return expected, wrong + judge_values(result, problem, metric, 0.0)
    bounds = metric_intervals(problem, config, overlap)
    surely, maybe = _regions(problem, config, inside, overlap >= 0)
    wrong += _judge_priors(result, bounds, surely, maybe, overlap >= 0, config)
    wrong += _judge_scores(result, bounds, config)
    error = torch.maximum(bounds.overlap_high - overlap, overlap - bounds.overlap_low)
    return expected, wrong + judge_values(result, problem, overlap, error)


def metric_intervals(problem: Problem, config: TaskAlignedConfig, overlap: Tensor) -> MetricIntervals:
    """Bounds of the metric and overlap of every pair; ``overlap`` is the definition's, in float64."""
    problem = problem.sanitised()
    exists = overlap >= 0
    row, _ = problem.gts.padded_rows()
    gts, pred = problem.gts.boxes[row][:, :, None].double(), problem.pred_boxes.float()[:, None].double()

    ends = (_probiou_bounds if config.overlap == "probiou" else _iou_bounds)(gts, pred, overlap, config)
    overlaps = [torch.where(exists, end.clamp(min=0), -1.0) for end in ends]

    label = problem.gts.labels[row][:, :, None].expand(overlap.shape)
    logits = problem.cls_logits.dense().transpose(1, 2).gather(1, label).double()  # [B, G, P]
    scores = logits.sigmoid() if config.score == "sigmoid" else logits.clamp(max=1)
    error = SCORE_ERROR if config.score == "sigmoid" else 0.0
    metrics = []
    for side, bound in zip((-1, 1), overlaps, strict=True):
        score = _normal(scores * (1 + side * error))
        found = score.pow(config.alpha) * bound.clamp(min=0).pow(config.beta)
        metrics.append(torch.where(exists, _normal(found * (1 + side * METRIC_ERROR)), 0.0))
    return MetricIntervals(*metrics, *overlaps)


def _iou_bounds(gts: Tensor, pred: Tensor, overlap: Tensor, config: TaskAlignedConfig) -> list[Tensor]:
    middle = overlap
    slack: Tensor | float = IOU_ERROR * overlap.abs() + UNDERFLOW
    if config.overlap == "ciou":
        middle = box_ciou(gts, pred, eps=config.union_eps)  # which may be below 0
        slack = CIOU_ERROR + _center_error(gts, pred, config.union_eps)
    # boxes that do not overlap are told by comparisons: 0 is 0
    apart = (torch.minimum(gts[..., 2:], pred[..., 2:]) <= torch.maximum(gts[..., :2], pred[..., :2])).any(-1)
    return [torch.where(apart, 0.0, middle + side * slack) for side in (-1, 1)]


def _probiou_bounds(gts: Tensor, pred: Tensor, overlap: Tensor, config: TaskAlignedConfig) -> list[Tensor]:
    """Those of :func:`box_probiou`, whose names these are, from the largest distance and from the least."""
    eps = config.union_eps
    along, across = (gts[..., 2:4].square() / 12).unbind(-1)
    other_along, other_across = (pred[..., 2:4].square() / 12).unbind(-1)
    angle = gts[..., 4] - pred[..., 4]
    sine, slip = angle.sin().abs(), TURN_ERROR * (1 + angle.abs())
    turn, slip = sine.square(), slip * (2 * sine + slip)
    same, crossed = along * other_along + across * other_across, along * other_across + across * other_along
    determinant = along * across + other_along * other_across + same * turn + crossed * (1 - turn)
    error = PROBIOU_ERROR * determinant + (same + crossed) * slip
    volume = (gts[..., 2:4].prod(-1) * pred[..., 2:4].prod(-1)).abs() / 36
    places = [value.abs() for value in (*in_frame(pred, gts), *in_frame(gts, pred))]
    moved = FRAME_ERROR * (gts[..., :2] - pred[..., :2]).abs().sum(-1)

    ends = []
    for side in (1, -1):
        x, y, other_x, other_y = ((place + side * moved).clamp(min=0).square() for place in places)
        apart = along * y + across * x + other_along * other_y + other_across * other_x
        apart = apart * (1 + side * PROBIOU_ERROR) / ((determinant - side * error).clamp(min=0) + eps) / 4
        shape = (determinant + side * error).clamp(min=0) / (volume * (1 - side * PROBIOU_ERROR) + eps)
        distance = apart + (shape + eps).log() / 2
        distance = (distance + side * (PROBIOU_ERROR * distance.abs() + 2 * ULP)).clamp(eps, MAX_DISTANCE)
        ends.append(1 - (eps - torch.expm1(-distance)).sqrt() - side * PROBIOU_ERROR)
    return ends


def _regions(
    problem: Problem, config: TaskAlignedConfig, inside: Tensor, exists: Tensor
) -> tuple[Tensor, Tensor]:
    """Where a prior surely lies in the region of a gt, and where it may, [B, G, P] each."""
    if config.boxes == "xyxy":
        return inside, inside
    row, _ = problem.gts.padded_rows()
    boxes = region_boxes(problem.gts.boxes[row][:, :, None], config).double()
    priors = problem.priors.double()
    x, y = in_frame(priors, boxes)
    deep = torch.minimum(boxes[..., 2] / 2 - x.abs(), boxes[..., 3] / 2 - y.abs()) - config.margin
    slack = FRAME_ERROR * ((priors[:, :2] - boxes[..., :2]).abs().sum(-1) + config.margin)
    near = exists & (deep.abs() <= slack)
    return inside & ~near, inside | near


def _normal(values: Tensor) -> Tensor:
    """0 below the smallest normal float32."""
    return torch.where(values >= SMALLEST, values, 0.0)


def _center_error(gts: Tensor, pred: Tensor, eps: float) -> Tensor:
    """What rounding of sums of coordinates does to the distance of the centres in CIoU."""
    size = torch.maximum(gts[..., 2:], pred[..., 2:]) - torch.minimum(gts[..., :2], pred[..., :2])
    gap = (gts[..., :2] + gts[..., 2:] - pred[..., :2] - pred[..., 2:]).square().sum(-1).sqrt() / 2
    rounding = 2 * ULP * torch.maximum(gts.abs().amax(-1), pred.abs().amax(-1))
    return (2 * gap + rounding) * rounding / (size.square().sum(-1) + eps)


def _judge_priors(
    result: Any,
    bounds: MetricIntervals,
    surely: Tensor,
    maybe: Tensor,
    exists: Tensor,
    config: TaskAlignedConfig,
) -> list[str]:
    low, high, overlap_low, overlap_high = bounds

    # who must and who may have selected the prior
    least_pool, most_pool = (exists, exists) if config.pool == "all" else (surely, maybe)
    possible, certain = maybe & (high > 0), surely & (low > 0)
    ahead = torch.where(most_pool, high, 0.0), torch.where(least_pool, low, 0.0)
    may = possible & (high >= _ranked(ahead[1], config.topk))
    must = certain & (low > _ranked(ahead[0], config.topk + 1))  # it is among these itself
    most = may.sum(2).clamp(max=config.topk)  # [B, G]
    least = must.sum(2)
    if config.pool == "inside":
        least = torch.maximum(least, certain.sum(2).clamp(max=config.topk))
    if config.at_least_one:
        lonely, surely_lonely = least[..., None] == 0, ~may.any(2, keepdim=True)
        best = exists & (high > 0) & (high >= _ranked(low, 1))
        only = exists & (low > 0) & (low > _ranked(high, 2))
        may, must = may | (lonely & best), must | (surely_lonely & only)
        most = torch.where(lonely[..., 0] & best.any(2), most.clamp(min=1), most)
        least = torch.where((low > 0).any(2), least.clamp(min=1), least)

    # whose it may be: the only gt that selected it, or the winner of a conflict
    alone = may & ~(must.sum(1, keepdim=True) - must.long() > 0)
    may_rival, must_rival = {
        "matched": (may, must), "inside": (maybe | may, surely | must), "all": (exists, exists),
    }[config.conflict]  # fmt: skip
    best = torch.where(must_rival, overlap_low, -1.0).amax(1, keepdim=True)
    wins = may_rival & (overlap_high >= best) & (may.sum(1, keepdim=True) > 1)
    claims, answer = result.claims.long(), result.gt_index
    owners = torch.where((claims > 1)[:, None], wins, alone & (claims == 1)[:, None])  # [B, G, P]

    in_range = (answer >= -1) & (answer < low.shape[1])
    slot = answer.clamp(0, low.shape[1] - 1)
    nobody = claims == 0
    if config.topk2 is not None:
        gts = torch.arange(low.shape[1], dtype=torch.int64, device=low.device)[:, None]
        kept = (answer[:, None] == gts) & in_range[:, None]
        full = kept.sum(2, keepdim=True) == config.topk2
        worst = torch.where(kept, high, torch.inf).amin(2, keepdim=True)
        nobody = nobody | (owners & full & (low <= worst)).any(1)
    fine = torch.where(answer < 0, nobody, of_answer(owners, slot)) & in_range
    fine = fine & (claims >= must.sum(1)) & (claims <= may.sum(1))
    wrong = [
        f"image {b}, prior {p}: gt {int(answer[b, p])} with {int(claims[b, p])} claims, "
        f"but {names(must[b, :, p])} must and {names(may[b, :, p])} may have selected it, "
        f"{names(wins[b, :, p])} may win a conflict"
        for b, p in (~fine).nonzero().tolist()
    ]

    # as many pairs as gts select, and no gt keeps more than it may
    pairs, fewest, largest = claims.sum(1), least.sum(1), most.sum(1)
    for b in ((pairs < fewest) | (pairs > largest)).nonzero().flatten().tolist():
        wrong.append(f"image {b}: {int(pairs[b])} pairs selected, not {int(fewest[b])} to {int(largest[b])}")
    positive = in_range & (answer >= 0)
    sole = torch.zeros_like(most).scatter_add(1, slot, (positive & (claims == 1)).long())
    for b, g in (sole > most).nonzero().tolist():
        wrong.append(f"image {b}, gt {g}: {int(sole[b, g])} priors of its own, it selects {int(most[b, g])}")
    if config.topk2 is not None:
        owned = torch.zeros_like(most).scatter_add(1, slot, positive.long())
        for b, g in (owned > config.topk2).nonzero().tolist():
            wrong.append(f"image {b}, gt {g}: keeps {int(owned[b, g])} priors, topk2 is {config.topk2}")
    return wrong


def _ranked(values: Tensor, place: int) -> Tensor:
    """The value [B, G, 1] in that place, 1 for the largest, of a gt's values [B, G, P]; -1 if it has fewer.

    Fewer values than places are no limit.
    """
    if values.shape[2] < place:
        return torch.full_like(values[..., :1], -1.0)
    return values.topk(place, dim=2).values[..., -1:]


def _judge_scores(result: Any, bounds: MetricIntervals, config: TaskAlignedConfig) -> list[str]:
    answer, num_gts = result.gt_index, bounds.low.shape[1]
    slot = answer.clamp(0, num_gts - 1)
    positive = (answer >= 0) & (answer < num_gts)
    own = MetricIntervals(*(of_answer(value, slot).clamp(min=0) * positive for value in bounds))

    def largest(values: Tensor) -> Tensor:
        """The largest value of the priors that each prior's gt owns, [B, P] -> [B, P]."""
        of_gts = torch.zeros(bounds.low.shape[:2], dtype=values.dtype, device=values.device)
        return of_gts.scatter_reduce(1, slot, values, "amax").gather(1, slot)

    low, high = (
        metric / (largest(others) + config.norm_eps).clamp(min=SMALLEST)
        for metric, others in ((own.low, own.high), (own.high, own.low))
    )
    low = low * largest(own.overlap_low) * (1 - TARGET_ERROR) - UNDERFLOW
    high = high.clamp(max=1) * largest(own.overlap_high) * (1 + TARGET_ERROR) + UNDERFLOW
    low, high = (torch.where(positive, end, 0.0) for end in (low, high))
    fine = (result.scores >= low) & (result.scores <= high)
    return [
        f"scores: image {b}, prior {p}: {float(result.scores[b, p])}, "
        f"not in [{float(low[b, p])}, {float(high[b, p])}]"
        for b, p in (~fine).nonzero().tolist()
    ]
