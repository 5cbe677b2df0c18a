"""How a gt looks for its priors of the largest metric: the counterpart of ``stream.search``.

The list of them is that of ``stream.cheapest``. Its keys are the bits of the metrics, negated: metrics are
positive, so their bits are ordered like them, and the largest has the least key.
"""

import triton
import triton.language as tl

from ... import constants as const
from ...aligned_maths import (
    angle_of,
    beyond,
    in_region,
    least_overlap,
    metric_of_pairs,
    overlap_area,
    overlap_of_pairs,
    region_box,
    shared_and_joined,
)
from ...maths import finite, reciprocal
from ..bounds import below, tile_iou, tile_points
from ..cheapest import empty_list, insert
from ..order import index_of, keys_of_tiles, least_bound, nearer_boxes, without
from ..tiles import find_column, load_four, summary_at


@triton.jit
def largest_metrics(
    k, gt, image, slots_ptr, points_ptr, tiles_ptr, cls, num_tiles,
    RULE: tl.constexpr, ANYWHERE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr,
    BOUNDS: tl.constexpr,
):  # fmt: skip
    """The k priors of the largest metric above 0 of a gt, the lower one where metrics are equal.

    Tiles are visited in descending order of the IoU they may hold. Once the list is full, its least metric
    says what an overlap must be at least (``least_overlap``), and as no overlap is above the IoU: where the
    next tile's bound is below, the rest is left alone, and pairs are dropped before their overlap is formed.
    Logits are read of those that are left.

    Args:
        k: Length of the list; 0 where there is nothing to look for.
        gt: x1, y1, x2, y2, centre x, centre y, area, label (``gts.load_table``).
        image: Its image, int64; slots and tiles are those of it.
        slots_ptr: [T, planes, TILE].
        points_ptr: [T, POINT, TILE].
        tiles_ptr: [ceil(T / GROUP), SUMMARY, GROUP].
        cls: Where class logits lie (``tiles.find_column``).
        num_tiles: T.
        ANYWHERE: Whether priors count that lie outside of the gt's region.

    Returns:
        keys, priors: [LANES] each, see ``cheapest.empty_list``.
    """
    PLANES: tl.constexpr = RULE.value.planes
    gx1, gy1, gx2, gy2, _cx, _cy, gt_area, label = gt
    region = region_box(gx1, gy1, gx2, gy2, RULE)
    area_of_gt = overlap_area(gx1, gy1, gx2, gy2, RULE)
    gt_angle = angle_of(gx1, gy1, gx2, gy2, RULE, FAST)
    keys, priors, worst, last = empty_list(k)
    limit = least_overlap(metric_of_key(worst), RULE, FAST)
    place = tl.arange(0, TILE)
    per_area = tl.maximum(reciprocal(tl.maximum(gt_area, 1e-30), FAST), 1e-30)
    # BOUNDS tiles are ranked at a time, see ``top_iou``; none for a gt that meets nothing
    parts = tl.where((k > 0) & (gt_area > 0.0), tl.cdiv(num_tiles, BOUNDS), 0)
    part = 0
    while part < parts:
        tile = tl.arange(0, BOUNDS) * parts + part  # [BOUNDS]
        waiting = _rank_tiles(tile, num_tiles, tiles_ptr, gt, region, per_area, RULE, ANYWHERE, FAST, BOUNDS)
        next_visit = tl.min(waiting)
        while 1.0 - least_bound(next_visit, BOUNDS) >= limit:
            visited = index_of(next_visit, BOUNDS) * parts + part
            x1, y1, x2, y2 = load_four(slots_ptr + visited * (PLANES * TILE) + place, TILE)  # [TILE] each
            point = points_ptr + visited * (const.POINT * TILE) + place
            # scheduling hint: the next visit is found here, while the boxes are being loaded
            waiting = without(waiting, next_visit)
            next_visit = tl.min(waiting)
            area = overlap_area(x1, y1, x2, y2, RULE)
            inter, union = shared_and_joined(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, area_of_gt, RULE)
            worth = (inter > 0.0) & ~below(inter, union, limit)  # [TILE]
            if not ANYWHERE:
                worth &= own_region(point, region, RULE, TILE)
            if tl.max(worth.to(tl.int32)) != 0:
                overlap = overlap_of_pairs(
                    x1, y1, x2, y2, gx1, gy1, gx2, gy2, gt_angle, inter, union, RULE, FAST
                )
                worth &= overlap >= limit
                p = tl.load(point + const.PRIOR * TILE).to(tl.int32, bitcast=True)
                logits, stride_p = find_column(visited, image, label.to(tl.int64), cls, LAYOUT)
                logit = tl.load(logits + p.to(tl.int64) * stride_p, mask=worth, other=0.0).to(tl.float32)
                found = keys_of_metrics(worth, logit, overlap, RULE, FAST)
                keys, priors, worst, last = insert(keys, priors, worst, last, found, p)
                limit = least_overlap(metric_of_key(worst), RULE, FAST)
        part += 1
    return keys, priors


@triton.jit
def _rank_tiles(
    tile, num_tiles, tiles_ptr, gt, region, per_area,
    RULE: tl.constexpr, ANYWHERE: tl.constexpr, FAST: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """Keys of tiles [BOUNDS], see ``order``, by 1 - the largest IoU that they may hold; those that hold none
    above 0, or no prior in the gt's region, are not visited.
    """
    gx1, gy1, gx2, gy2, cx, cy, gt_area, _label = gt
    # behind the last tile the last one is read, which takes fewer instructions than a mask for each value
    summary = tiles_ptr + summary_at(tl.minimum(tile, num_tiles - 1))
    bound, middle_x, middle_y = tile_iou(summary, gx1, gy1, gx2, gy2, gt_area, FAST)  # [BOUNDS] each
    visited = (bound > 0.0) & (tile < num_tiles)
    if not ANYWHERE:
        visited &= _may_hold(summary, region, RULE)
    # among tiles that may hold as much, the one whose small boxes lie nearest
    distance = nearer_boxes(middle_x, middle_y, cx, cy, per_area)
    return keys_of_tiles(1.0 - bound + distance, visited, BOUNDS)


@triton.jit
def _may_hold(summary, region, RULE: tl.constexpr):
    """Whether tiles can have a prior in a region, ``aligned_maths.in_region``: exact but for ``max_reach``,
    since subtraction and comparison round monotonically.
    """
    x1, y1, x2, y2 = region
    left, top, right, bottom, stride = tile_points(summary)
    deepest = tl.minimum(tl.minimum(right - x1, x2 - left), tl.minimum(bottom - y1, y2 - top))
    may = beyond(deepest, RULE)
    if RULE.value.reaches:
        nearest = tl.maximum(tl.maximum(left - x1, x2 - right), tl.maximum(top - y1, y2 - bottom))
        may &= nearest <= stride * (RULE.value.max_reach * (1.0 + const.OVERLAP_SLACK))
    return may


@triton.jit
def own_region(point, region, RULE: tl.constexpr, TILE: tl.constexpr):
    """Whether priors, whose points' planes begin at ``point``, lie in a region."""
    x1, y1, x2, y2 = region
    x, y = tl.load(point), tl.load(point + TILE)
    stride_x, stride_y = x, y  # of the right type and shape; never read
    if RULE.value.reaches:
        stride_x, stride_y = tl.load(point + 2 * TILE), tl.load(point + 3 * TILE)
    return in_region(x, y, stride_x, stride_y, x1, y1, x2, y2, RULE)


@triton.jit
def keys_of_metrics(worth, logit, overlap, RULE: tl.constexpr, FAST: tl.constexpr):
    """Keys of the metrics of pairs; NONE of those that are not ``worth`` it, whose logit is not finite, or
    whose metric is 0.
    """
    metric = metric_of_pairs(logit, overlap, RULE, FAST)
    return tl.where(worth & finite(logit) & (metric > 0.0), key_of_positive(metric), const.NONE)


@triton.jit
def key_of_positive(value):
    """float32 above 0 -> int32 in descending order."""
    return -value.to(tl.int32, bitcast=True)


@triton.jit
def metric_of_key(key):
    """The inverse of :func:`key_of_positive`; 0 of NONE."""
    return tl.where(key == const.NONE, 0, -key).to(tl.float32, bitcast=True)
