"""The terms of the task-aligned metric on the device, one function each, as in ``task_aligned/terms.py``.

As in ``maths``, the same steps are taken in every kernel, so that all of them round alike.
"""

import triton
import triton.language as tl

from . import constants as const
from .maths import box_area, exp2, fraction, guard, log2, root, sigmoid


@triton.jit
def region_box(gx1, gy1, gx2, gy2, RULE: tl.constexpr):
    """Boxes whose priors gts may select: their own, with sides below ``min_side_below`` enlarged about the
    boxes' centres. Twin: ``terms.region_boxes``.
    """
    if RULE.value.enlarges:
        reach = RULE.value.min_side_to / 2
        cx, cy = (gx1 + gx2) * 0.5, (gy1 + gy2) * 0.5
        narrow = gx2 - gx1 < RULE.value.min_side_below
        low = gy2 - gy1 < RULE.value.min_side_below
        gx1, gx2 = tl.where(narrow, cx - reach, gx1), tl.where(narrow, cx + reach, gx2)
        gy1, gy2 = tl.where(low, cy - reach, gy1), tl.where(low, cy + reach, gy2)
    return gx1, gy1, gx2, gy2


@triton.jit
def in_region(x, y, stride_x, stride_y, x1, y1, x2, y2, RULE: tl.constexpr):
    """Whether points lie in boxes of :func:`region_box`, in float32. Strides are read where there is a
    ``max_reach``. Twin: ``terms.in_region``.
    """
    depth = tl.minimum(tl.minimum(x - x1, x2 - x), tl.minimum(y - y1, y2 - y))
    inside = beyond(depth, RULE)
    if RULE.value.reaches:
        far_x = tl.div_rn(tl.maximum(x - x1, x2 - x), stride_x)
        far_y = tl.div_rn(tl.maximum(y - y1, y2 - y), stride_y)
        inside &= tl.maximum(far_x, far_y) <= RULE.value.max_reach
    return inside


@triton.jit
def beyond(depth, RULE: tl.constexpr):
    """Whether a depth is above the margin, or is it where that counts."""
    if RULE.value.inclusive:
        return depth >= RULE.value.margin
    else:
        return depth > RULE.value.margin


@triton.jit
def overlap_area(x1, y1, x2, y2, RULE: tl.constexpr):
    """Areas of boxes as the overlap counts them: for CIoU heights are larger by ``union_eps``."""
    if RULE.value.complete:
        return (x2 - x1) * (y2 - y1 + RULE.value.union_eps)
    else:
        return box_area(x1, y1, x2, y2)


@triton.jit
def shared_and_joined(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE: tl.constexpr):
    """Intersection and guarded union of boxes, whose areas are those of :func:`overlap_area`. The first is
    above 0 only where both boxes have a width and a height, and is no NaN.
    """
    width = tl.maximum(tl.minimum(x2, gx2) - tl.maximum(x1, gx1), 0.0)
    inter = width * (tl.minimum(y2, gy2) - tl.maximum(y1, gy1))
    return inter, guard(area + gt_area - inter, RULE)


@triton.jit
def overlap_of_pairs(
    x1, y1, x2, y2, gx1, gy1, gx2, gy2, gt_angle, inter, union, RULE: tl.constexpr, FAST: tl.constexpr
):
    """The overlap of predictions and gts, in [0, 1].

    Args:
        x1, y1, x2, y2: Boxes of the priors.
        gx1, gy1, gx2, gy2: Boxes of the gts.
        gt_angle: See :func:`angle_of`, of the gts.
        inter, union: See :func:`shared_and_joined`.

    Twin: ``terms.pair_overlap``, ``boxes.box_ciou``.
    """
    overlap = fraction(inter, union, FAST)
    if RULE.value.complete:
        EPS: tl.constexpr = RULE.value.union_eps
        width, height = tl.maximum(x2, gx2) - tl.minimum(x1, gx1), tl.maximum(y2, gy2) - tl.minimum(y1, gy1)
        diagonal = width * width + height * height + EPS
        # in this order, since corners near each other have exact differences
        dx, dy = (gx1 - x1) + (gx2 - x2), (gy1 - y1) + (gy2 - y2)
        distance = (dx * dx + dy * dy) * 0.25
        difference = angle_of(x1, y1, x2, y2, RULE, FAST) - gt_angle
        v = difference * difference * const.CIOU_SCALE
        penalty = fraction(distance, diagonal, FAST) + v * fraction(v, 1.0 - overlap + v + EPS, FAST)
        # a distance beyond float32 makes the definition's overlap NaN, which counts as 0
        overlap = tl.where(distance < float("inf"), tl.maximum(overlap - penalty, 0.0), 0.0)
    return overlap


@triton.jit
def angle_of(x1, y1, x2, y2, RULE: tl.constexpr, FAST: tl.constexpr):
    """The angle of boxes' diagonals that CIoU compares, atan(width / (height + eps)); 0 where nothing asks
    for it.
    """
    if RULE.value.complete:
        return arctangent(x2 - x1, y2 - y1 + RULE.value.union_eps, FAST)
    else:
        return x1 * 0.0


@triton.jit
def arctangent(a, b, FAST: tl.constexpr):
    """atan(a / b) of a, b >= 0, not both 0, within 2 ulp where the quotient of the smaller and the larger is
    within 1.

    Up to a / b = 1 it is ``t + t^3 * p(t^2)`` with t = a / b, whose polynomial is the minimax one: its error
    of 1.7e-8 and the roundings of both steps leave 1.1 ulp of the result. Beyond, it is pi / 2 less the same
    of b / a.
    """
    t = fraction(tl.minimum(a, b), tl.maximum(a, b), FAST)
    x = t * t
    p = tl.fma(x, 0.0029206890612840652, -0.016367916017770767)
    p = tl.fma(p, x, 0.04321184381842613)
    p = tl.fma(p, x, -0.07552212476730347)
    p = tl.fma(p, x, 0.10666003823280334)
    p = tl.fma(p, x, -0.14211055636405945)
    p = tl.fma(p, x, 0.19993773102760315)
    p = tl.fma(p, x, -0.33333152532577515)
    angle = tl.fma(p * x, t, t)
    return tl.where(a > b, angle * -1.0 + const.HALF_PI, angle)


@triton.jit
def class_score(x, RULE: tl.constexpr, FAST: tl.constexpr):
    """The probability of a class, at most 1; 0 below the normal numbers of float32. Twin:
    ``terms.class_scores``.
    """
    SCORE: tl.constexpr = RULE.value.score
    if SCORE == "sigmoid":
        p = sigmoid(x, FAST)
    else:
        p = tl.where(x > 1.0, 1.0, x)
    return tl.where(p >= const.SMALLEST, p, 0.0)


@triton.jit
def power(x, EXPONENT: tl.constexpr, FAST: tl.constexpr):
    """X ** EXPONENT of x in [0, 1]. The exponents of the presets take no logarithm; any other is within
    2^-22 * ln(2) * (2 + EXPONENT * (1 + |log2 x|)), relative.
    """
    if EXPONENT == 0.0:
        return x * 0.0 + 1.0
    elif EXPONENT == 1.0:
        return x
    elif EXPONENT == 0.5:
        return root(x, FAST)
    elif EXPONENT == 6.0:
        return x * x * (x * x) * (x * x)
    else:
        return exp2(log2(x, FAST) * EXPONENT, FAST)


@triton.jit
def metric_of_pairs(logit, overlap, RULE: tl.constexpr, FAST: tl.constexpr):
    """Score ** alpha * overlap ** beta; 0 below the normal numbers of float32. Twin: ``terms.metric``."""
    ALPHA: tl.constexpr = RULE.value.alpha
    BETA: tl.constexpr = RULE.value.beta
    metric = power(class_score(logit, RULE, FAST), ALPHA, FAST) * power(overlap, BETA, FAST)
    return tl.where(metric >= const.SMALLEST, metric, 0.0)


@triton.jit
def least_overlap(metric, RULE: tl.constexpr, FAST: tl.constexpr):
    """The least overlap of a pair whose metric is ``metric`` or more, and a little less.

    A score is at most 1, so ``metric <= overlap ** beta`` and the overlap is at least ``metric ** (1 /
    beta)``. Both sides are rounded: logarithms are within 2^-22, absolute near 1 and relative elsewhere, and
    every other step within 2^-22, so that ``OVERLAP_SLACK`` = 2^-16 of each is more than enough.
    """
    exponent = log2(tl.maximum(metric, const.SMALLEST), FAST)
    exponent = exponent * ((1.0 + const.OVERLAP_SLACK) / RULE.value.beta)
    return exp2(exponent - const.OVERLAP_SLACK * (1.0 + 1.0 / RULE.value.beta), FAST)


@triton.jit
def share_of(metric, largest_metric, RULE: tl.constexpr, FAST: tl.constexpr):
    """A metric as a share of its gt's largest, see ``terms.target``."""
    return fraction(metric, tl.maximum(largest_metric + RULE.value.norm_eps, const.SMALLEST), FAST)
