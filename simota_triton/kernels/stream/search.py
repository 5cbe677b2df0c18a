"""How a gt looks for its cheapest priors: which tile comes next, which of a tile's pairs are worth the
forming of their cost, and the loop around both. For ``select`` and ``rescue``.

A *pair* is the gt and a prior. What is known of it goes from function to function as one tuple, as does the
gt: ``gt`` is x1, y1, x2, y2, centre x, centre y, area, label (``gts.load_table``), ``cls`` is where class
logits lie (``tiles.find_column``).
"""

import triton
import triton.language as tl

from .. import constants as const
from ..maths import (
    box_area,
    center_rate,
    cost_of_pairs,
    finite,
    intersection_and_union,
    key_of,
    region_depth,
)
from ..positives import can_be_spared
from .bounds import (
    farthest_rank,
    least_cost,
    may_cost,
    meets,
    pair_limits,
    tile_distance,
    tile_iou,
    tile_iou_cost,
    tile_points,
    tile_position_cost,
)
from .cheapest import empty_list, insert, limit_of
from .order import index_of, keys_of_tiles, least_bound, nearer, without
from .tiles import find_column, load_four, summary_at


@triton.jit
def cheapest_priors(
    k, gt, image, slots_ptr, points_ptr, tiles_ptr, cls, num_tiles, gt_index_ptr, positives_ptr,
    min_positives,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The k cheapest priors of a gt, the lower one where costs are equal; k is at least 1 for a gt that takes
    part.

    Tiles are visited in ascending order of what their pairs cost at least, or of their distance
    (``Rule.by_distance``). Once the list is full, its costliest entry is the limit, which no pair of interest
    exceeds: where the next tile is above it, the rest is left alone, and pairs are dropped by IoU, distance
    and penalty before their cost is formed (see ``bounds``). So logits are read of some dozen priors a gt, or
    of its tiles' candidates where these lie side by side, since then no load waits for the decision.

    Args:
        k: Length of the list.
        gt: The gt.
        image: Its image, int64; slots and tiles are those of it.
        slots_ptr: [T, planes, TILE].
        points_ptr: [T, POINT, TILE].
        tiles_ptr: [ceil(T / GROUP), SUMMARY, GROUP].
        cls: Where class logits lie.
        num_tiles: T.
        gt_index_ptr: [P]; with ``positives_ptr`` only.
        positives_ptr: None, or how many priors each gt of the image has: then only priors count that are
            background or of a gt with more than ``min_positives``. The bounds hold all the same: leaving out
            priors makes no other pair cheaper.
        min_positives: See there.

    Returns:
        costs, priors: [LANES] each, see ``cheapest.empty_list``.
    """
    costs, priors, costliest, last = empty_list(k)
    limit = tl.full([], float("inf"), tl.float32)
    # BOUNDS tiles are ranked at a time, see ``top_iou``; none for a gt that takes no part
    parts = tl.where(gt[7] >= 0, tl.cdiv(num_tiles, BOUNDS), 0)
    part = 0
    while part < parts:
        tile = tl.arange(0, BOUNDS) * parts + part  # [BOUNDS]
        waiting = rank_tiles(tile, limit, tiles_ptr, num_tiles, gt, RULE, FAST, BOUNDS)  # [BOUNDS]
        next_visit = tl.min(waiting)
        least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
        while least_bound(next_visit, BOUNDS) <= farthest_rank(limit, reach, RULE):
            visited = index_of(next_visit, BOUNDS) * parts + part
            worth, p, pairs = find_pairs(
                visited,
                image,
                gt,
                least_iou,
                least_iou_if_paid,
                reach,
                slots_ptr,
                points_ptr,
                cls,
                RULE,
                LAYOUT,
                TILE,
            )
            # scheduling hint: the next visit is found here, while what the pairs need is being loaded
            waiting = without(waiting, next_visit)
            next_visit = tl.min(waiting)
            if tl.max(worth.to(tl.int32)) != 0:
                if positives_ptr is not None:
                    worth &= can_be_spared(gt_index_ptr, positives_ptr, p, worth, min_positives)
                found = keys_of_pairs(worth, p, pairs, gt, RULE, LAYOUT, FAST, TILE)  # [TILE]
                costs, priors, costliest, last = insert(costs, priors, costliest, last, found, p)
                limit = limit_of(costliest)
                least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
        part += 1
    return costs, priors


@triton.jit
def rank_tiles(
    tile, limit, tiles_ptr, num_tiles, gt, RULE: tl.constexpr, FAST: tl.constexpr, BOUNDS: tl.constexpr
):
    """Keys of tiles [BOUNDS], see ``order``, by what their pairs with a gt cost at least, or by their
    distance (``Rule.by_distance``). Tiles without a candidate, and those whose pairs all cost more than
    ``limit``, are not visited.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    gx1, gy1, gx2, gy2, cx, cy, gt_area, _label = gt
    # behind the last tile the last one is read, which takes fewer instructions than a mask for each value
    summary = tiles_ptr + summary_at(tl.minimum(tile, num_tiles - 1))
    visited = (tl.load(summary + const.ANY_CANDIDATE * const.GROUP) > 0.0) & (tile < num_tiles)  # [BOUNDS]
    left, top, right, bottom, stride = tile_points(summary)
    distance = tile_distance(left, top, right, bottom, stride, cx, cy, FAST)
    if RULE.value.own_pairs_only:
        visited &= meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, CANDIDATE)
    if RULE.value.by_distance:
        rank = tl.minimum(distance, const.NOWHERE)
    else:
        eligible = visited
        if RULE.value.penalized:
            eligible = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, ELIGIBLE)
        position_cost = tile_position_cost(distance, eligible, RULE, FAST)
        visited &= position_cost <= limit - least_cost(RULE)
        # scheduling hint: the address depends on ``visited``, so that these loads come after those above;
        # together they take more registers than there are
        bound, _x, _y = tile_iou(
            tiles_ptr + summary_at(tl.where(visited, tile, 0)), gx1, gy1, gx2, gy2, gt_area, FAST
        )
        rank = position_cost + tile_iou_cost(bound, RULE, FAST) + nearer(distance, 1.0)
    return keys_of_tiles(rank, visited, BOUNDS)


@triton.jit
def find_pairs(
    visited, image, gt, least_iou, least_iou_if_paid, reach, slots_ptr, points_ptr, cls,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The pairs of a gt and the priors of a tile, and which of them it may take and satisfy
    ``bounds.pair_limits``.

    Returns:
        worth: [TILE], whether it is such a pair.
        p: [TILE], the priors.
        pairs: What :func:`keys_of_pairs` takes.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    PLANES: tl.constexpr = RULE.value.planes
    gx1, gy1, gx2, gy2, cx, cy, gt_area, label = gt
    place = tl.arange(0, TILE)  # [TILE], as all that follows
    slot = slots_ptr + visited * (PLANES * TILE) + place
    point = points_ptr + visited * (const.POINT * TILE) + place
    x1, y1, x2, y2 = load_four(slot + const.BOX * TILE, TILE)
    x, y, stride_x, stride_y = load_four(point, TILE)
    background = tl.load(slot + const.BACKGROUND * TILE)
    p = tl.load(point + const.PRIOR * TILE).to(tl.int32, bitcast=True)
    logits, stride_p = find_column(visited, image, label.to(tl.int64), cls, LAYOUT)
    # a sum of class costs or 0, and no flag: in [0, inf), in one instruction
    candidate = background.to(tl.uint32, bitcast=True) < 0x7F800000
    logit = background
    if LAYOUT == "priors":
        logit = tl.load(logits + p, mask=candidate, other=0.0).to(tl.float32)
    area = box_area(x1, y1, x2, y2)
    inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    outside = inter == inter  # of the right type and shape; never read
    if RULE.value.penalized:
        outside = region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, ELIGIBLE) <= 0.0
    worth = may_cost(inter, union, x, y, stride_x, cx, cy, outside, least_iou, least_iou_if_paid, reach, RULE)
    if RULE.value.own_pairs_only:
        worth &= region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0
    worth &= candidate
    if LAYOUT == "priors":
        # scheduling hint: where all classes count this is always so, but it keeps the compiler from loading
        # logits behind the branch on ``worth``, and waiting for them there
        worth &= finite(logit)
    else:
        worth &= p >= 0  # scheduling hint: always so, the same for p
    pairs = (slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background)
    return worth, p, pairs


@triton.jit
def keys_of_pairs(
    worth, p, pairs, gt, RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr
):
    """Keys of the costs of pairs of :func:`find_pairs`, [TILE] int32; NONE of those not ``worth`` it."""
    gx1, gy1, gx2, gy2, cx, cy, _gt_area, _label = gt
    slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background = pairs
    objectness = background  # of the right type and shape; never read
    if RULE.value.joint:
        objectness = tl.load(slot + const.OBJECTNESS * TILE, mask=worth, other=0.0)
    if LAYOUT != "priors":
        logit = tl.load(logits + p.to(tl.int64) * stride_p, mask=worth, other=0.0).to(tl.float32)
        if RULE.value.gt_class_only:
            worth &= finite(logit)
    cost, _ = cost_of_pairs(
        x1, y1, x2, y2, x, y, center_rate(stride_x, RULE, FAST), gx1, gy1, gx2, gy2, cx, cy,
        inter, union, outside, logit, objectness, background, RULE, FAST,
    )  # fmt: skip
    return tl.where(worth, key_of(cost), const.NONE)
