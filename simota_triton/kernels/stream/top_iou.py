"""The third kernel: the largest IoUs of each gt, from which ``select`` forms dynamic k."""

import triton
import triton.language as tl

from ..gts import load_place, load_table
from ..levels import find_logits
from ..maths import box_area, finite, fraction, intersection_and_union, region_depth
from .bounds import below, meets, tile_distance, tile_iou
from .tiles import find_level, load_boxes, load_points
from .visits import LANES, NONE, drop, first_visit, index_of, order, without

# a list holds at most 32 values, one a lane; see config.MAX_TOPK


@triton.jit(do_not_specialize=["candidate_topk", "num_tiles", "B", "splits"])
def top_iou(
    # output [N, splits, 32] int32
    top_ptr,
    # scratch, see ``prepare``; gts as int64
    slots_ptr, points_ptr, tiles_ptr, gt_table_ptr,
    # predictions
    cls_levels,
    # sizes and strides, the tuples coded
    candidate_topk, num_tiles, B, splits, starts, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """For a gt and every ``splits``-th tile of its image: the ``candidate_topk`` largest IoUs above 0, as the bits of float32,
    which are ordered like the numbers; then zeros, in any order.

    Tiles are visited nearest first. The least of the list, once it is full, is what an IoU must exceed: tiles whose bound does
    not are dropped, and so are pairs, before the quotient is formed. What is left, some 16 to 31 pairs a gt, is inserted in place
    of the least.

    Grid: (N, splits). Twin: ``matching.dynamic_k_matching``'s ``top_iou``.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    gt, split = tl.program_id(0), tl.program_id(1)
    gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt.to(tl.int64), None)
    lane = tl.arange(0, LANES)
    best = tl.where(lane < candidate_topk, 0, NONE)
    least = tl.min(best)
    place = tl.arange(0, TILE)
    S = num_tiles * TILE
    plane, step = B.to(tl.int64) * S, B.to(tl.int64) * num_tiles
    image, _ = load_place(gt_table_ptr, gt.to(tl.int64))
    image = image.to(tl.int64)
    if label >= 0:
        parts = tl.cdiv(num_tiles, BOUNDS * splits)
        part = 0
        while part < parts:
            tile = (tl.arange(0, BOUNDS) * parts + part) * splits + split
            present = tile < num_tiles
            at = image * num_tiles + tile
            bound = tile_iou(tiles_ptr, at, step, present, gx1, gy1, gx2, gy2, gt_area, FAST)
            distance, left, top, right, bottom, stride = tile_distance(tiles_ptr, at, step, present, cx, cy, FAST)
            if RULE.value.own_pairs_only:
                own = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, CANDIDATE)
                bound = tl.where(own, bound, 0.0)
            waiting = order(distance, bound > least.to(tl.float32, bitcast=True), BOUNDS)
            nearest = first_visit(waiting)
            while nearest != NONE:
                slot = ((index_of(nearest, BOUNDS) * parts + part) * splits + split) * TILE + place
                x1, y1, x2, y2 = load_boxes(slots_ptr, image * S + slot, plane)
                waiting = without(waiting, nearest)
                nearest = first_visit(waiting)
                area = box_area(x1, y1, x2, y2)
                inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
                lowest = least.to(tl.float32, bitcast=True)
                worth = (inter > 0.0) & ~below(inter, union, lowest * (1.0 - 2.0**-20))
                if RULE.value.own_pairs_only:
                    x, y, stride_x, stride_y = load_points(points_ptr, slot, S)
                    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
                    worth &= region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0
                if tl.max(worth.to(tl.int32)) != 0:
                    if RULE.value.gt_class_only:
                        p = tl.load(points_ptr + slot + 4 * S).to(tl.int32, bitcast=True)
                        level, level_start = find_level(tl.min(p), starts, len(cls_levels))
                        logits, stride_p, stride_c = find_logits(
                            level, image, level_start, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c, LAYOUT, False
                        )
                        logit = tl.load(logits + label.to(tl.int64) * stride_c + p.to(tl.int64) * stride_p, mask=worth, other=0.0).to(
                            tl.float32
                        )
                        worth &= finite(logit)
                    found = tl.where(worth, fraction(inter, union, FAST).to(tl.int32, bitcast=True), -1)
                    largest = tl.max(found)
                    while largest > least:
                        found = without_one(found, largest, place)
                        out = tl.min(tl.where(best == least, lane, LANES))
                        best = tl.where(lane == out, largest, best)
                        least = tl.min(best)
                        largest = tl.max(found)
                    waiting = drop(waiting, bound <= least.to(tl.float32, bitcast=True))
                    nearest = first_visit(waiting)
            part += 1
    tl.store(top_ptr + (gt.to(tl.int64) * splits + split) * LANES + lane, tl.where(best == NONE, 0, best))


@triton.jit
def without_one(found, value, place):
    """``found`` with the first occurrence of ``value`` taken out."""
    at = tl.min(tl.where(found == value, place, 0x7FFFFFFF))
    return tl.where(place == at, -1, found)
