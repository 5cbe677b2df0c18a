"""The last kernel, where there are ``min_positives``: gts that are short of positives take some."""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_table
from ..levels import decode
from ..maths import box_area, fraction, intersection_and_union, value_of
from ..positives import can_be_spared, count_positives, hand_over
from .bounds import farthest_rank, pair_limits
from .order import index_of, least_bound, without
from .search import find_pairs, keys_of_pairs, rank_tiles
from .tiles import load_four, slot_at


@triton.jit(do_not_specialize=["min_positives", "num_tiles"])
def rescue(
    # outputs [B, P], changed in place
    gt_index_ptr, matched_iou_ptr, labels_ptr,
    # scratch, see ``prepare``; gts as int64, positives [N] int32
    slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, positives_ptr,
    # predictions and offsets of the gts
    cls_levels, gt_offsets_ptr,
    # sizes and strides, the tuples coded
    min_positives, num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The gts of an image in turn: while one has fewer than ``min_positives`` priors, it takes the cheapest
    that can be spared, of equals the lowest.

    A gt that is short visits tiles as in ``select``, with the cheapest prior so far in place of a list: the
    same bounds hold, since leaving out priors that cannot be spared makes no other pair cheaper. Who has a
    prior, and how many its gt has, is looked up
    for pairs whose cost is to be formed.

    Grid: (B,), since each gt's turn waits for the one before; see ``positives`` for what that asks of memory.
    Twin: ``matching.rescue``.
    """
    P = decode(starts[len(starts) - 1], False)
    PLANES: tl.constexpr = RULE.value.planes
    image = tl.program_id(0).to(tl.int64)
    gt_first = tl.load(gt_offsets_ptr + image)
    num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
    gt_index_ptr += image * P
    matched_iou_ptr += image * P
    labels_ptr += image * P
    slots_ptr += image * num_tiles * (PLANES * TILE)
    tiles_ptr += image * (tl.cdiv(num_tiles, 32) * const.SUMMARY * 32)
    positives_ptr += gt_first
    count_positives(gt_index_ptr, positives_ptr, num_gts, P, const.COUNTED)
    g = 0
    while g < num_gts:
        gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt_first + g, None)
        label64 = label.to(tl.int64)
        missing = tl.where(label >= 0, min_positives - tl.load(positives_ptr + g), 0)
        while missing > 0:
            best = tl.full([], const.NONE, tl.int32)
            prior = tl.full([], const.NONE, tl.int32)
            limit = tl.full([], float("inf"), tl.float32)
            parts = tl.cdiv(num_tiles, BOUNDS)  # see largest_ious
            part = 0
            while part < parts:
                tile = tl.arange(0, BOUNDS) * parts + part
                waiting = rank_tiles(
                    tile, limit, tiles_ptr, num_tiles, gx1, gy1, gx2, gy2, cx, cy, gt_area, RULE, FAST, BOUNDS
                )
                next_visit = tl.min(waiting)
                least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
                while least_bound(next_visit, BOUNDS) <= farthest_rank(limit, reach, RULE):
                    visited = index_of(next_visit, BOUNDS) * parts + part
                    (
                        worth, p, slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background,
                    ) = find_pairs(
                        visited, image, label64, least_iou, least_iou_if_paid, reach, slots_ptr, points_ptr, cls_levels, starts,
                        first_tiles, cls_strides_b, cls_strides_p, cls_strides_c, gx1, gy1, gx2, gy2, cx, cy, gt_area, RULE, LAYOUT, TILE,
                    )  # fmt: skip
                    waiting = without(waiting, next_visit)
                    next_visit = tl.min(waiting)
                    if tl.max(worth.to(tl.int32)) != 0:
                        worth &= can_be_spared(gt_index_ptr, positives_ptr, p, worth, min_positives)
                        found = keys_of_pairs(
                            worth, p, slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background,
                            gx1, gy1, gx2, gy2, cx, cy, RULE, LAYOUT, FAST, TILE,
                        )  # fmt: skip
                        least = tl.min(found)
                        lowest = tl.min(tl.where(found == least, p, const.NONE))
                        if (least < best) | ((least == best) & (lowest < prior) & (least != const.NONE)):
                            best = least
                            prior = lowest
                            limit = value_of(best)
                            least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
                part += 1
            missing -= 1
            if best == const.NONE:
                missing = 0
            else:
                hand_over(gt_index_ptr, positives_ptr, prior, g)
                # names of their own, as in ``resolve``
                at = slots_ptr + slot_at(tl.load(slot_of_ptr + prior), PLANES, TILE)
                won_x1, won_y1, won_x2, won_y2 = load_four(at, TILE)
                won_area = box_area(won_x1, won_y1, won_x2, won_y2)
                shared, joined = intersection_and_union(
                    won_x1, won_y1, won_x2, won_y2, won_area, gx1, gy1, gx2, gy2, gt_area, RULE
                )
                tl.store(matched_iou_ptr + prior, fraction(shared, joined, FAST))
                tl.store(labels_ptr + prior, label64)
        g += 1
