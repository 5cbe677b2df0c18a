"""Bounds of costs and IoUs: what is known of pairs before their cost is formed.

**What a pair costs at least.** Let ::

    LEAST = -iou_weight * log(1 + log_eps), or 0 for GIoU

which is what the IoU cost is at least. Then

* the class term is at least 0, since it is clamped there;
* for any u >= IoU the IoU cost is at least ``-iou_weight * log(u + log_eps)``, or ``iou_weight * (1 - u)``
  for GIoU, hence at least LEAST: the logarithm grows with the IoU, and GIoU <= IoU;
* for any d <= distance / stride the centre term is at least ``center_weight * center_base ** (d -
  center_offset)``, hence at least 0;
* a pair outside its gt's eligible region pays the penalty.

The cost is at least the sum of the four.

**What follows from a cost.** Of a pair that costs at most c

* the IoU is at least ``exp(-c / iou_weight) - log_eps``, or ``1 - c / iou_weight`` for GIoU
  (:func:`lowest_iou`);
* the distance is at most ``center_offset + log((c - LEAST) / center_weight) / log(center_base)`` strides
  (:func:`farthest`);
* if it pays the penalty, both hold of ``c - penalty`` too, which must not be below LEAST
  (:func:`pair_limits`).

**The IoUs of a tile.** Let the predictions of a tile lie in a box that shares the area o with a gt of area a,
and let their areas lie between l and m. Then ::

    intersection <= i,  union >= a + max(l - i, 0),  IoU <= i / (a + max(l - i, 0))    with i = min(o, m)

and the quotient grows with i. The small and the large boxes of a tile are
bounded each for themselves, with ``l = 0, m = SMALL * largest area`` and with ``l = SMALL * largest area, m =
largest area`` (:func:`tile_iou`).

**Slack.** All of this holds for real numbers. Kernels compare costs rounded to float32, so every bound is
loosened by more than rounding can be off: costs by 2^-12 of their size and IoUs by 1e-5, where rounding is
some 2^-20; the penalised sum, whose grid is 2^-24 of its size, by 2^-22. A bound that is too weak costs time,
one that is too strong an answer.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..maths import exp2, log2, reciprocal, square_root
from .tiles import load_four


@triton.jit
def least_cost(RULE: tl.constexpr):
    """LEAST, and a little less, with log_eps for log(1 + log_eps), which is smaller."""
    IOU_COST: tl.constexpr = RULE.value.iou_cost
    if IOU_COST == "log":
        return -1.001 * RULE.value.iou_weight * RULE.value.log_eps - 1e-6 * RULE.value.iou_weight
    else:
        return -1e-5 * RULE.value.iou_weight


@triton.jit
def lowest_iou(cost, RULE: tl.constexpr, FAST: tl.constexpr):
    """The smallest IoU of a pair that costs at most ``cost``; negative where any will do, as with a cost of
    +inf.
    """
    IOU_COST: tl.constexpr = RULE.value.iou_cost
    WEIGHT: tl.constexpr = RULE.value.iou_weight
    cost += tl.abs(cost) * const.SLACK
    if WEIGHT == 0.0:
        return tl.minimum(cost, 0.0) * 0.0 - 1.0
    elif IOU_COST == "log":
        return (
            exp2(cost * (-const.LOG2E / WEIGHT), FAST) * (1.0 - const.SLACK)
            - RULE.value.log_eps
            - const.IOU_SLACK
        )
    else:
        return cost * (-1.0 / WEIGHT) + (1.0 - const.IOU_SLACK)


@triton.jit
def farthest(cost, RULE: tl.constexpr, FAST: tl.constexpr):
    """The square of the largest distance, in strides, of a pair that costs at most ``cost``; -1 where none
    can.
    """
    if RULE.value.distance_counts:
        center = tl.maximum(
            (cost - least_cost(RULE)) * ((1.0 + const.SLACK) / RULE.value.center_weight), 1e-37
        )
        strides = RULE.value.center_offset + log2(center, FAST) * (1.0 / RULE.value.log2_center_base)
        strides += tl.abs(strides) * const.IOU_SLACK
        return tl.where(strides > 0.0, strides * strides * (1.0 + const.IOU_SLACK), -1.0)
    else:
        return tl.minimum(cost, 0.0) * 0.0 + float("inf")


@triton.jit
def pair_limits(cost, RULE: tl.constexpr, FAST: tl.constexpr):
    """What a pair that costs at most ``cost`` must satisfy, for :func:`may_cost`: its least IoU, its least
    IoU if it pays the penalty (2 where it cannot afford that), and its largest distance as :func:`farthest`
    gives it.
    """
    # costs are clamped to COST_LIMIT, and nothing follows from one that was
    cost = tl.where(cost < const.COST_LIMIT, cost, float("inf"))
    iou = lowest_iou(cost, RULE, FAST)
    iou_if_paid = iou
    if RULE.value.penalized:
        rest = (cost - RULE.value.penalty) + tl.abs(cost) * const.PAID_SLACK
        iou_if_paid = tl.where(rest < least_cost(RULE), 2.0, lowest_iou(rest, RULE, FAST))
    return iou, iou_if_paid, farthest(cost, RULE, FAST)


@triton.jit
def may_cost(inter, union, x, y, stride_x, cx, cy, outside, iou, iou_if_paid, reach, RULE: tl.constexpr):
    """Whether pairs satisfy ``iou``, ``iou_if_paid`` and ``reach`` of :func:`pair_limits`: no division, no
    logarithm.
    """
    if RULE.value.penalized:
        iou = tl.where(outside, iou_if_paid, iou)
    may = ~below(inter, union, iou)
    if RULE.value.distance_counts:
        dx, dy = x - cx, y - cy
        # strides of 1e-15 or less, whose squares vanish, are never too far
        may &= tl.fma(dx, dx, dy * dy) <= tl.fma(reach * stride_x, stride_x, 1e-30)
    return may


@triton.jit
def below(inter, union, iou):
    """Whether a pair's IoU is certainly below ``iou``; no where the union is not finite."""
    return tl.maximum(inter, 0.0) < iou * union


@triton.jit
def span(low, high, center, reach, present, REGION: tl.constexpr):
    """An interval along one axis outside which no point lies in a region of a gt; empty where the gt is not
    ``present``.
    """
    if REGION == "all":
        return tl.where(present, float("-inf"), float("inf")), tl.where(present, float("inf"), float("-inf"))
    elif REGION == "box":
        return low, high
    elif REGION == "center":
        return center - reach, center + reach
    elif REGION == "box_or_center":
        return tl.minimum(low, center - reach), tl.maximum(high, center + reach)
    else:
        return tl.maximum(low, center - reach), tl.minimum(high, center + reach)


@triton.jit
def meets(
    left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE: tl.constexpr, REGION: tl.constexpr
):
    """Whether any point in a box, of a prior of at most this stride, can lie in a region of a gt: exact,
    since subtraction and comparison round monotonically.
    """
    reach = RULE.value.center_radius * stride
    present = gx1 < float("inf")
    low_x, high_x = span(gx1, gx2, cx, reach, present, REGION)
    low_y, high_y = span(gy1, gy2, cy, reach, present, REGION)
    return (low_x < right) & (high_x > left) & (low_y < bottom) & (high_y > top)


@triton.jit
def tile_iou(summary_ptr, gx1, gy1, gx2, gy2, gt_area, FAST: tl.constexpr):
    """An upper bound of the IoUs of a gt and the priors of tiles, 0 where none of them meets it; and twice
    the centre of the box around each tile's small boxes, (0, 0) where there are none. For a gt without area
    it may be 1, though it meets nothing.
    """
    largest = tl.load(summary_ptr + const.LARGEST_AREA * const.GROUP)  # [BOUNDS]
    most_of_small = largest * const.SMALL
    shared, _x, _y = _tile_overlap(summary_ptr + const.BOX * const.GROUP, gx1, gy1, gx2, gy2)
    shared = tl.minimum(shared, largest)
    share = shared * reciprocal(gt_area + tl.maximum(most_of_small - shared, 0.0), FAST)
    shared_by_small, x, y = _tile_overlap(summary_ptr + const.SMALL_BOX * const.GROUP, gx1, gy1, gx2, gy2)
    share = tl.maximum(share, tl.minimum(shared_by_small, most_of_small) * reciprocal(gt_area, FAST)) * (
        1.0 + const.IOU_SLACK
    )
    return tl.where(share < 1.0, share, 1.0), x, y


@triton.jit
def _tile_overlap(box_ptr, gx1, gy1, gx2, gy2):
    """The area that a gt shares with boxes of summaries, and twice the boxes' centres."""
    x1, y1, x2, y2 = load_four(box_ptr, const.GROUP)
    width = tl.maximum(tl.minimum(x2, gx2) - tl.maximum(x1, gx1), 0.0)
    height = tl.maximum(tl.minimum(y2, gy2) - tl.maximum(y1, gy1), 0.0)
    return width * height, x1 + x2, y1 + y2


@triton.jit
def tile_points(summary_ptr):
    """The box around the points of tiles, and their largest stride."""
    left, top, right, bottom = load_four(summary_ptr + const.POINTS * const.GROUP, const.GROUP)
    return left, top, right, bottom, tl.load(summary_ptr + const.STRIDE * const.GROUP)


@triton.jit
def tile_distance(left, top, right, bottom, stride, cx, cy, FAST: tl.constexpr):
    """The square of a lower bound of the distance, in strides, from a gt's centre to the priors of tiles; see
    :func:`tile_points`.
    """
    dx = tl.maximum(tl.maximum(left - cx, cx - right), 0.0)
    dy = tl.maximum(tl.maximum(top - cy, cy - bottom), 0.0)
    per_stride = reciprocal(tl.maximum(stride, 1e-37), FAST)
    dx *= per_stride
    dy *= per_stride
    return tl.fma(dx, dx, dy * dy) * (1.0 - const.IOU_SLACK)


@triton.jit
def farthest_rank(cost, reach, RULE: tl.constexpr):
    """What ``select`` ranks tiles by is at most this where a pair may cost at most ``cost``, and lie at most
    ``reach`` away (see :func:`pair_limits`).
    """
    if RULE.value.by_distance:
        return reach
    else:
        return cost - least_cost(RULE)


@triton.jit
def tile_position_cost(distance_squared, eligible, RULE: tl.constexpr, FAST: tl.constexpr):
    """A lower bound of centre term and penalty of a gt and the priors of tiles, by where they lie.

    Args:
        distance_squared: See :func:`tile_distance`.
        eligible: Whether a prior of the tile can lie in the gt's eligible region; read where there is a
            penalty.
    """
    cost = tl.zeros_like(distance_squared)
    if RULE.value.distance_counts:
        exponent = square_root(distance_squared, FAST) * RULE.value.log2_center_base
        exponent -= RULE.value.center_offset * RULE.value.log2_center_base
        cost = exp2(tl.minimum(exponent, 126.0), FAST) * RULE.value.center_weight
    if RULE.value.penalized:
        cost += tl.where(eligible, 0.0, RULE.value.penalty)
    return tl.minimum(cost, 1e38) * (1.0 - const.SLACK)


@triton.jit
def tile_iou_cost(iou, RULE: tl.constexpr, FAST: tl.constexpr):
    """A lower bound of the IoU cost above LEAST, hence at least 0.

    Args:
        iou: See :func:`tile_iou`.
    """
    IOU_COST: tl.constexpr = RULE.value.iou_cost
    WEIGHT: tl.constexpr = RULE.value.iou_weight
    if IOU_COST == "log":
        cost = (
            log2(tl.fma(iou, 1.0 + const.IOU_SLACK, RULE.value.log_eps), FAST) * (-const.LN2 * WEIGHT)
            - 1e-6 * WEIGHT
        )
    else:
        cost = (iou - (1.0 - const.IOU_SLACK)) * -WEIGHT
    return tl.maximum((cost - least_cost(RULE)) * (1.0 - const.SLACK), 0.0)
