"""How a gt looks for its cheapest priors: which tile comes next, and which of a tile's pairs are worth their
cost. For ``select`` and ``rescue``.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..maths import box_area, center_rate, cost_of_pairs, finite, intersection_and_union, key_of, region_depth
from .bounds import (
    least_cost,
    may_cost,
    meets,
    tile_distance,
    tile_iou,
    tile_iou_cost,
    tile_points,
    tile_position_cost,
)
from .order import nearer, order
from .tiles import find_column, load_four, summary_at


@triton.jit
def rank_tiles(
    tile,
    limit,
    tiles_ptr,
    num_tiles,
    gx1,
    gy1,
    gx2,
    gy2,
    cx,
    cy,
    gt_area,
    RULE: tl.constexpr,
    FAST: tl.constexpr,
    BOUNDS: tl.constexpr,
):
    """Keys of tiles [BOUNDS] in ascending order of what their pairs with a gt cost at least, or of their
    distance (``Rule.by_distance``); see ``order.order``. Those without a candidate, and those that cannot
    cost ``limit`` or less, are not visited.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    # behind the last tile the last one is read, which takes fewer instructions than a mask for each value
    summary = tiles_ptr + summary_at(tl.minimum(tile, num_tiles - 1))
    alive = (tl.load(summary + 14 * 32) > 0.0) & (tile < num_tiles)
    left, top, right, bottom, stride = tile_points(summary)
    distance = tile_distance(left, top, right, bottom, stride, cx, cy, FAST)
    if RULE.value.own_pairs_only:
        alive &= meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, CANDIDATE)
    if RULE.value.by_distance:
        rank = tl.minimum(distance, const.NOWHERE)
    else:
        eligible = alive
        if RULE.value.penalized:
            eligible = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, ELIGIBLE)
        position_cost = tile_position_cost(distance, eligible, RULE, FAST)
        alive &= position_cost <= limit - least_cost(RULE)
        # one look after the other: together their loads take more registers than there are
        bound, _x, _y = tile_iou(
            tiles_ptr + summary_at(tl.where(alive, tile, 0)), gx1, gy1, gx2, gy2, gt_area, FAST
        )
        rank = position_cost + tile_iou_cost(bound, RULE, FAST) + nearer(distance, 1.0)
    return order(rank, alive, BOUNDS)


@triton.jit
def find_pairs(
    visited, image, label, least_iou, least_iou_if_paid, reach, slots_ptr, points_ptr, cls_levels, starts, first_tiles,
    cls_strides_b, cls_strides_p, cls_strides_c, gx1, gy1, gx2, gy2, cx, cy, gt_area,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Pairs of a gt and the priors of a tile that it may take and that satisfy ``bounds.pair_limits``.

    Returns:
        worth, whether it is such a pair; then all that :func:`keys_of_pairs` takes.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    PLANES: tl.constexpr = RULE.value.planes
    place = tl.arange(0, TILE)
    slot = slots_ptr + visited * (PLANES * TILE) + place
    point = points_ptr + visited * (const.POINT * TILE) + place
    x1, y1, x2, y2 = load_four(slot, TILE)
    x, y, stride_x, stride_y = load_four(point, TILE)
    background, p = tl.load(slot + 4 * TILE), tl.load(point + 4 * TILE).to(tl.int32, bitcast=True)
    logits, stride_p = find_column(
        visited,
        image,
        label,
        starts,
        first_tiles,
        cls_levels,
        cls_strides_b,
        cls_strides_p,
        cls_strides_c,
        LAYOUT,
    )
    # a sum of class costs or 0, and no flag: in [0, inf), in one instruction
    candidate = background.to(tl.uint32, bitcast=True) < 0x7F800000
    logit = background
    if LAYOUT == "priors":
        logit = tl.load(logits + p, mask=candidate, other=0.0).to(tl.float32)
    area = box_area(x1, y1, x2, y2)
    inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    outside = inter == inter
    if RULE.value.penalized:
        outside = region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, ELIGIBLE) <= 0.0
    worth = may_cost(inter, union, x, y, stride_x, cx, cy, outside, least_iou, least_iou_if_paid, reach, RULE)
    if RULE.value.own_pairs_only:
        worth &= region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0
    worth &= candidate
    if LAYOUT == "priors":
        # where all classes count, what is not finite was lost: this keeps the compiler from loading it behind
        # the branch, and waiting for it there
        worth &= finite(logit)
    else:
        worth &= p >= 0  # always: the same for p
    return (
        worth,
        p,
        slot,
        x1,
        y1,
        x2,
        y2,
        x,
        y,
        stride_x,
        inter,
        union,
        outside,
        logits,
        stride_p,
        logit,
        background,
    )


@triton.jit
def keys_of_pairs(
    worth, p, slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background,
    gx1, gy1, gx2, gy2, cx, cy, RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Keys of the costs of pairs of :func:`find_pairs`, NONE of those not ``worth`` it."""
    objectness = background
    if RULE.value.joint:
        objectness = tl.load(slot + 5 * TILE, mask=worth, other=0.0)
    if LAYOUT != "priors":
        logit = tl.load(logits + p.to(tl.int64) * stride_p, mask=worth, other=0.0).to(tl.float32)
        if RULE.value.gt_class_only:
            worth &= finite(logit)
    cost, _ = cost_of_pairs(
        x1, y1, x2, y2, x, y, center_rate(stride_x, RULE, FAST), gx1, gy1, gx2, gy2, cx, cy,
        inter, union, outside, logit, objectness, background, RULE, FAST,
    )  # fmt: skip
    return tl.where(worth, key_of(cost), const.NONE)
