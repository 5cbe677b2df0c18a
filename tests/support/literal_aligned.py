"""A second opinion on the task-aligned rule: one image at a time, loops over gts and priors, float64.

Nothing of the package is used and no configuration is read. Where a prior lies is decided in float32, as it
is part of the rule, but for rotated boxes; a metric below the smallest normal float32 counts as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 2.0**-126


@dataclass(frozen=True)
class AlignedRule:
    """A preset's numbers."""

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    ciou: bool = True
    eps: float = 1e-7
    at_least_eps: bool = False  # the union is this at least, in place of this being added
    conflict: str = "inside"
    norm_eps: float = 1e-9
    below: float = 0.0
    to: float = 0.0
    topk2: int | None = None
    margin: float = 0.0
    inclusive: bool = False
    reach: float | None = None
    anywhere: bool = False  # the topk are those of all priors
    one_at_least: bool = False
    rotated: bool = False  # boxes are (cx, cy, w, h, angle), overlaps ProbIoU


YOLOV6 = {"topk": 13, "alpha": 1.0, "ciou": False, "eps": 1e-9, "conflict": "all"}

ALIGNED_RULES = {
    "tal": AlignedRule(below=16.0, to=16.0),
    "tal_o2o": AlignedRule(topk=7, topk2=1, below=16.0, to=16.0),
    "tal_v10": AlignedRule(topk=1, below=16.0, to=16.0),
    "tal_840": AlignedRule(below=8.0, to=16.0),
    "tal_v8": AlignedRule(),
    "yolov9": AlignedRule(conflict="all"),
    "tal_mmyolo": AlignedRule(conflict="all"),
    "yolov6": AlignedRule(**YOLOV6),
    "yolov6_mmyolo": AlignedRule(**YOLOV6, norm_eps=1e-7),
    "ppyoloe": AlignedRule(**YOLOV6),
    "luxonis": AlignedRule(**YOLOV6, below=8.0, to=16.0),
    "tood": AlignedRule(
        topk=13, alpha=1.0, ciou=False, eps=1e-6, at_least_eps=True, conflict="matched", norm_eps=1e-7,
        margin=0.01, anywhere=True,
    ),
    "yolo9_mit": AlignedRule(conflict="matched", inclusive=True, reach=14.99, one_at_least=True),
    "tal_obb": AlignedRule(rotated=True, inclusive=True, below=16.0, to=16.0),
    "tal_obb_v8": AlignedRule(rotated=True, inclusive=True),
}  # fmt: skip


class Answer(NamedTuple):
    """Of the priors of an image: the gt (-1: none), how many gts selected it, overlap and target."""

    gt: list[int]
    claims: list[int]
    overlap: list[float]
    score: list[float]


def inside(rule: AlignedRule, prior: Tensor, box: Tensor) -> bool:
    """Whether the point of a prior [2] or [4] lies in the region of a box [4], float32 both."""
    ends, margin = [], torch.tensor(rule.margin)
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        if high - low < rule.below:
            middle = (low + high) / 2
            low, high = middle - rule.to / 2, middle + rule.to / 2
        ends.append((low, high))
    depths = [side for at, (low, high) in zip(prior, ends, strict=False) for side in (at - low, high - at)]
    near = min(depths)
    if not (near >= margin if rule.inclusive else near > margin):
        return False
    if rule.reach is None:
        return True
    return all(float(max(depths[2 * i : 2 * i + 2]) / prior[2 + i]) <= rule.reach for i in (0, 1))


def inside_rotated(rule: AlignedRule, prior: list[float], box: list[float]) -> bool:
    """Whether a point projects onto both sides of a box that meet in its corner A, ends included.

    On purpose a side of 0 holds nothing, though by the originals' formula every point projects onto it.
    """
    sides = [rule.to if side < rule.below else side for side in box[2:4]]
    if 0.0 in sides:
        return False
    cos, sin = math.cos(box[4]), math.sin(box[4])
    ab, ad = (sides[0] * cos, sides[0] * sin), (-sides[1] * sin, sides[1] * cos)
    ap = [prior[i] - (box[i] - (ab[i] + ad[i]) / 2) for i in (0, 1)]
    return all(0 <= ap[0] * side[0] + ap[1] * side[1] <= side[0] ** 2 + side[1] ** 2 for side in (ab, ad))


def probiou(rule: AlignedRule, gt: list[float], pred: list[float]) -> float:
    """1 minus the Hellinger distance of the Gaussians of two rotated boxes, 0 where it is below."""
    spreads = []
    for _, _, w, h, angle in (gt, pred):
        along, across, cos, sin = w * w / 12, h * h / 12, math.cos(angle), math.sin(angle)
        a, b = along * cos * cos + across * sin * sin, along * sin * sin + across * cos * cos
        spreads.append((a, b, (along - across) * cos * sin, along * across))
    a, b, c = (spreads[0][i] + spreads[1][i] for i in range(3))
    x, y = pred[0] - gt[0], pred[1] - gt[1]
    d = a * b - c * c
    apart = (a * y * y + b * x * x) / (d + rule.eps) / 4 - c * x * y / (d + rule.eps) / 2
    shape = math.log(d / (4 * math.sqrt(spreads[0][3] * spreads[1][3]) + rule.eps) + rule.eps) / 2
    distance = min(max(apart + shape, rule.eps), 100.0)
    return max(0.0, 1 - math.sqrt(1 - math.exp(-distance) + rule.eps))


def overlap(rule: AlignedRule, gt: list[float], pred: list[float]) -> float:
    """IoU, or complete IoU, of two xyxy boxes; 0 where it is below."""
    width = max(0.0, min(gt[2], pred[2]) - max(gt[0], pred[0]))
    height = max(0.0, min(gt[3], pred[3]) - max(gt[1], pred[1]))
    both = width * height
    if not both:
        return 0.0
    added = rule.eps if rule.ciou else 0.0
    sizes = [(box[2] - box[0], box[3] - box[1] + added) for box in (gt, pred)]
    union = sizes[0][0] * sizes[0][1] + sizes[1][0] * sizes[1][1] - both
    iou = both / (max(union, rule.eps) if rule.at_least_eps else union + rule.eps)
    if not rule.ciou:
        return iou
    hull = [max(gt[2 + i], pred[2 + i]) - min(gt[i], pred[i]) for i in (0, 1)]
    gap = [(gt[i] + gt[2 + i] - pred[i] - pred[2 + i]) / 2 for i in (0, 1)]
    far = (gap[0] ** 2 + gap[1] ** 2) / (hull[0] ** 2 + hull[1] ** 2 + rule.eps)
    v = 4 / math.pi**2 * (math.atan(sizes[0][0] / sizes[0][1]) - math.atan(sizes[1][0] / sizes[1][1])) ** 2
    return max(0.0, iou - far - v * v / (1 - iou + v + rule.eps))


def assign(
    rule: AlignedRule,
    priors: Tensor,
    pred: Tensor,
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    usable: Tensor,
) -> Answer:
    """An image.

    Args:
        rule: The preset.
        priors: [P, 2] or [P, 4] float32.
        pred: [P, 4], or [P, 5] rotated.
        scores: [P, C] probabilities, not finite where a prior takes no part for gts of that class.
        boxes: [G, 4] or [G, 5] float32, of real gts.
        labels: [G].
        usable: [P] bool, the others take no part.
    """
    num_priors, gts = len(priors), range(len(boxes))
    of_boxes = probiou if rule.rotated else overlap
    s, predicted, real = scores.double().tolist(), pred.double().tolist(), boxes.double().tolist()
    here, o, m = [], [], []
    for g in gts:
        row_here, row_o, row_m = [], [], []
        for p in range(num_priors):
            score = s[p][int(labels[g])]
            if not usable[p] or not math.isfinite(score):
                row_here.append(False)
                row_o.append(-1.0)
                row_m.append(0.0)
                continue
            if rule.rotated:
                row_here.append(inside_rotated(rule, priors[p].tolist(), real[g]))
            else:
                row_here.append(inside(rule, priors[p], boxes[g]))
            row_o.append(of_boxes(rule, real[g], predicted[p]))
            metric = (
                score**rule.alpha * row_o[-1] ** rule.beta if score >= SMALLEST or not rule.alpha else 0.0
            )
            row_m.append(metric if metric >= SMALLEST else 0.0)
        here.append(row_here)
        o.append(row_o)
        m.append(row_m)

    chosen: list[list[int]] = [[] for _ in range(num_priors)]
    for g in gts:
        pool = [p for p in range(num_priors) if rule.anywhere or here[g][p]]
        best = sorted(pool, key=lambda p, g=g: (-m[g][p], p))[: rule.topk]
        best = [p for p in best if here[g][p] and m[g][p] > 0]
        if rule.one_at_least and not best:
            best = [p for p in sorted(range(num_priors), key=lambda p, g=g: (-m[g][p], p))[:1] if m[g][p] > 0]
        for p in best:
            chosen[p].append(g)
    gt = []
    for p in range(num_priors):
        if len(chosen[p]) < 2:
            gt.append(chosen[p][0] if chosen[p] else -1)
            continue
        among = {
            "matched": chosen[p],
            "inside": [g for g in gts if here[g][p] or g in chosen[p]],
            "all": [g for g in gts if o[g][p] >= 0],
        }[rule.conflict]
        gt.append(min(among, key=lambda g: (-o[g][p], g)))
    if rule.topk2 is not None:
        for g in gts:
            own = sorted((p for p in range(num_priors) if gt[p] == g), key=lambda p: (-m[g][p], p))
            for p in own[rule.topk2 :]:
                gt[p] = -1
    score, matched = [0.0] * num_priors, [0.0] * num_priors
    for g in gts:
        own = [p for p in range(num_priors) if gt[p] == g]
        for p in own:
            top = max(m[g][q] for q in own) + rule.norm_eps
            score[p] = m[g][p] / max(top, SMALLEST) * max(o[g][q] for q in own)
            matched[p] = o[g][p]
    return Answer(gt, [len(c) for c in chosen], matched, score)
