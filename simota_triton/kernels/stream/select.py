"""The third kernel: dynamic k of each gt, its k cheapest priors, and its claims on them."""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_place, load_table
from ..levels import decode
from ..maths import box_area, fraction, intersection_and_union, value_of
from .bounds import farthest_rank, pair_limits
from .order import index_of, least_bound, without
from .search import find_pairs, keys_of_pairs, rank_tiles
from .tiles import load_four, slot_at
from .top_iou import largest_ious


@triton.jit(do_not_specialize=["k_scale", "candidate_topk", "num_tiles", "splits"])
def select(
    # outputs: [B, P] each, and dynamic_k [N]
    gt_index_ptr, matched_iou_ptr, labels_ptr, claims_ptr, dynamic_k_ptr,
    # scratch, see ``prepare``; gts as int64, contested [capacity] int64 (image and slot) with the cost of a
    # claim each
    top_ptr, slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr, num_conflicts_ptr, conflicts_ptr, conflict_costs_ptr,
    cheapest_ptr,
    # predictions
    cls_levels,
    # sizes and strides, the tuples coded; k_scale as the bits of a float64
    k_scale, candidate_topk, num_tiles, splits, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """For a gt::

        dynamic_k = max(1, floor(k_scale * sum of its candidate_topk largest IoUs)), the sum in float64
        claims[b, p] += 1 for each p of its dynamic_k cheapest priors, the lower prior first where costs are
        equal

    Tiles are visited in ascending order of what their pairs cost at least, or of their distance
    (``Rule.by_distance``). Once the list of the k cheapest is full, its costliest entry is what a pair may cost
    at most: where the next tile is above it, the rest is left alone, and pairs are dropped by IoU, distance
    and penalty before their cost is formed (see ``bounds``). So logits are read of some dozen priors a gt, or
    of its tiles' candidates where these lie side by side, since then no load waits for the decision.

    A claim is written to the outputs at once. It stands unless another gt claims the same prior: the second
    claimant notes the prior as contested, and ``resolve`` decides. Where the cheapest claim wins ("matched"),
    claims are compared as they are made.

    Grid: (N,). Twin: ``matching.dynamic_k_matching`` on rows of ``reference.cost_matrix``.
    """
    P = decode(starts[len(starts) - 1], False)
    gt = tl.program_id(0)
    gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt.to(tl.int64), None)
    image, index = load_place(gt_table_ptr, gt.to(tl.int64))
    image = image.to(tl.int64)
    label64 = label.to(tl.int64)
    lane = tl.arange(0, const.LANES)
    PLANES: tl.constexpr = RULE.value.planes
    slots_ptr += image * num_tiles * (PLANES * TILE)
    tiles_ptr += image * (tl.cdiv(num_tiles, 32) * const.SUMMARY * 32)

    total = _sum_of_lists(top_ptr + gt.to(tl.int64) * splits * const.LANES, candidate_topk, splits)
    if RULE.value.all_classes:
        again = tl.load(unreadable_ptr + image) != 0  # the lists may hold priors that take no part
        best = largest_ious(
            gx1, gy1, gx2, gy2, cx, cy, gt_area, label, image, slots_ptr, points_ptr, tiles_ptr, cls_levels,
            again & (label >= 0), candidate_topk, 0, 1, num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
            RULE, LAYOUT, FAST, TILE, const.LANES,
        )  # fmt: skip
        total = tl.where(again, _sum(best), total)
    scaled = total * k_scale.to(tl.float64, bitcast=True)
    k = tl.where(label >= 0, tl.maximum(scaled.to(tl.int32), 1), 0)
    tl.store(dynamic_k_ptr + gt, k.to(tl.int64))

    # entries to be filled differ from each other, so that cost and prior tell which one is replaced
    costs = tl.where(lane < k, const.NONE, const.FREE)
    priors = tl.where(lane < k, -lane + const.NONE, -1)
    costliest, last = tl.max(costs), tl.max(priors)
    limit = tl.full([], float("inf"), tl.float32)
    parts = tl.where(label >= 0, tl.cdiv(num_tiles, BOUNDS), 0)  # see largest_ious
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
                visited, image, label64, least_iou, least_iou_if_paid, reach, slots_ptr, points_ptr, cls_levels, starts, first_tiles,
                cls_strides_b, cls_strides_p, cls_strides_c, gx1, gy1, gx2, gy2, cx, cy, gt_area, RULE, LAYOUT, TILE,
            )  # fmt: skip
            waiting = without(waiting, next_visit)
            next_visit = tl.min(waiting)
            if tl.max(worth.to(tl.int32)) != 0:
                found = keys_of_pairs(
                    worth, p, slot, x1, y1, x2, y2, x, y, stride_x, inter, union, outside, logits, stride_p, logit, background,
                    gx1, gy1, gx2, gy2, cx, cy, RULE, LAYOUT, FAST, TILE,
                )  # fmt: skip
                cheapest = tl.min(found)
                prior = tl.min(tl.where(found == cheapest, p, const.NONE))
                while (cheapest < costliest) | (
                    (cheapest == costliest) & (prior < last) & (cheapest != const.NONE)
                ):
                    found = tl.where(p == prior, const.NONE, found)
                    out = (costs == costliest) & (priors == last)
                    costs = tl.where(out, cheapest, costs)
                    priors = tl.where(out, prior, priors)
                    costliest = tl.max(costs)
                    last = tl.max(tl.where(costs == costliest, priors, -1))
                    cheapest = tl.min(found)
                    prior = tl.min(tl.where(found == cheapest, p, const.NONE))
                limit = tl.where(costliest == const.NONE, float("inf"), value_of(costliest))
                least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
        part += 1

    taken = (priors >= 0) & (costs != const.NONE)
    out = image * P + priors
    slot_of = tl.load(slot_of_ptr + priors, mask=taken, other=0)
    x1, y1, x2, y2 = load_four(slots_ptr + slot_at(slot_of, PLANES, TILE), TILE)
    inter, union = intersection_and_union(
        x1, y1, x2, y2, box_area(x1, y1, x2, y2), gx1, gy1, gx2, gy2, gt_area, RULE
    )
    tl.store(gt_index_ptr + out, tl.zeros([const.LANES], tl.int64) + index, mask=taken)
    tl.store(matched_iou_ptr + out, fraction(inter, union, FAST), mask=taken)
    tl.store(labels_ptr + out, tl.zeros([const.LANES], tl.int64) + label, mask=taken)
    if cheapest_ptr is not None:
        tl.atomic_min(cheapest_ptr + out, (costs.to(tl.int64) << 32) | index, mask=taken, sem="relaxed")
    before = tl.atomic_add(claims_ptr + out, 1, mask=taken, sem="relaxed")
    second = taken & (before == 1)
    if tl.max(second.to(tl.int32)) != 0:
        entry = tl.atomic_add(
            num_conflicts_ptr + tl.zeros([const.LANES], tl.int32), 1, mask=second, sem="relaxed"
        )
        tl.store(conflicts_ptr + entry, (image << 32) | slot_of, mask=second)
        tl.store(conflict_costs_ptr + entry, value_of(costs), mask=second)


@triton.jit
def _sum_of_lists(top_ptr, candidate_topk, splits):
    """The sum of the ``candidate_topk`` largest values of a gt's lists, in float64."""
    if splits == 1:
        total = _sum(tl.load(top_ptr + tl.arange(0, const.LANES)))
    else:
        lane = tl.arange(0, const.LISTS)
        values = tl.load(top_ptr + lane, mask=lane < splits * const.LANES, other=0)
        total = tl.full([], 0.0, tl.float64)
        missing = candidate_topk
        largest = tl.max(values)
        while (missing > 0) & (largest > 0):
            equal = values == largest
            count = tl.minimum(tl.sum(equal.to(tl.int32)), missing)
            total += largest.to(tl.float32, bitcast=True).to(tl.float64) * count
            missing -= count
            values = tl.where(equal, 0, values)
            largest = tl.max(values)
    return total


@triton.jit
def _sum(bits):
    """The sum of float32 values, given as their bits, in float64."""
    return tl.sum(bits.to(tl.float32, bitcast=True).to(tl.float64))
