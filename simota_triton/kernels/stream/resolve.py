"""The fourth kernel: priors that several gts claim."""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_table
from ..levels import decode
from ..maths import (
    box_area,
    center_rate,
    cost_of_pairs,
    finite,
    fraction,
    intersection_and_union,
    key_of,
    region_depth,
    value_of,
)
from .bounds import may_cost, pair_limits
from .tiles import find_logits_of_tile, load_four, slot_at


@triton.jit(do_not_specialize=["num_tiles"])
def resolve(
    # outputs [B, P]
    gt_index_ptr, matched_iou_ptr, labels_ptr,
    # scratch, see the guide
    slots_ptr, points_ptr, gt_table_ptr, num_conflicts_ptr, conflicts_ptr, conflict_costs_ptr,
    cheapest_claims_ptr,
    # predictions and offsets of the gts
    cls_levels, gt_offsets_ptr,
    # sizes and strides, the tuples coded
    num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, CONFLICT: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr,
    GTS: tl.constexpr,
):  # fmt: skip
    """For each conflict, a prior that several gts claim, in turn over the programs: its gt by ``CONFLICT``,
    among equals the lower one, written over whatever its claimants wrote.

    * "all": the gt of least cost of all of its image, whether or not it claimed the prior.
    * "max_iou": the gt of largest IoU of all of its image.
    * "matched": the cheapest claim, which ``select`` has found already.

    Grid: any. Twin: the conflicts of ``matching.dynamic_k_matching``.
    """
    P = decode(starts[len(starts) - 1], False)
    PLANES: tl.constexpr = RULE.value.planes
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)
    count = tl.load(num_conflicts_ptr)
    turn = tl.program_id(0)
    # scheduling hint: loaded beside the count, not behind it; the grid has at most as many programs as the
    # list has room, so the address exists
    entry = tl.load(conflicts_ptr + turn)
    while turn < count:
        image, slot = entry >> 32, entry.to(tl.int32)
        gt_first = tl.load(gt_offsets_ptr + image)
        at = slots_ptr + image * num_tiles * (PLANES * TILE) + slot_at(slot, PLANES, TILE)
        point = points_ptr + slot_at(slot, const.POINT, TILE)
        x1, y1, x2, y2 = load_four(at, TILE)
        p = tl.load(point + const.PRIOR * TILE).to(tl.int32, bitcast=True)
        out = image * P + p
        area = box_area(x1, y1, x2, y2)
        if CONFLICT == "matched":
            winner = (tl.load(cheapest_claims_ptr + out) & 0xFFFFFFFF).to(tl.int32)
        else:
            num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
            limit = tl.load(conflict_costs_ptr + turn)
            if CONFLICT == "max_iou":
                limit = limit * 0.0 + float("inf")
            winner = _best_gt(
                tl.load(gt_index_ptr + out).to(tl.int32), limit, image, p, slot, at, point, x1, y1, x2, y2,
                area,
                gt_table_ptr, gt_first, num_gts, cls, RULE, CONFLICT, LAYOUT, FAST, TILE, GTS,
            )  # fmt: skip
        won_x1, won_y1, won_x2, won_y2, _cx, _cy, won_area, won_label = load_table(
            gt_table_ptr, gt_first + winner, None
        )
        shared, joined = intersection_and_union(
            x1, y1, x2, y2, area, won_x1, won_y1, won_x2, won_y2, won_area, RULE
        )
        tl.store(gt_index_ptr + out, winner.to(tl.int64))
        tl.store(matched_iou_ptr + out, fraction(shared, joined, FAST))
        tl.store(labels_ptr + out, won_label.to(tl.int64))
        turn += tl.num_programs(0)
        entry = tl.load(conflicts_ptr + turn, mask=turn < count, other=0)


@triton.jit
def _best_gt(
    winner, limit, image, p, slot, at, point, x1, y1, x2, y2, area, gt_table_ptr, gt_first, num_gts, cls,
    RULE: tl.constexpr, CONFLICT: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr,
    GTS: tl.constexpr,
):  # fmt: skip
    """The gt of least cost, or of largest IoU, of a prior; the lower one among equals.

    The cost of one claim is known, so a gt matters only if its pair may cost no more: GTS gts at a time are
    held against that by IoU, distance and penalty (see ``bounds``), and costs are formed of those that are
    left.

    Args:
        winner: One of the claimants.
        limit: What the prior costs one of them; +inf where the IoU decides.
        image, p, slot, at, point: The prior, its slot, and where the planes of it lie.
        x1, y1, x2, y2, area: Its box.
        gt_table_ptr, gt_first, num_gts: Table of gts, those of the image and how many they are.
        cls: See ``search``.
    """
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    x, y, stride_x, stride_y = load_four(point, TILE)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    background = tl.load(at + const.BACKGROUND * TILE)
    objectness = background  # of the right type and shape; never read
    if RULE.value.joint:
        objectness = tl.load(at + const.OBJECTNESS * TILE)
    logits, stride_p, stride_c = find_logits_of_tile(slot // TILE, image, cls, LAYOUT)
    logits += p.to(tl.int64) * stride_p
    lane = tl.arange(0, GTS)
    best = tl.full([], const.NONE, tl.int32)
    least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
    g = 0
    while g < num_gts:
        mask = g + lane < num_gts  # [GTS], as all that follows
        gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt_first + g + lane, mask)
        worth = label >= 0
        inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
        outside = worth  # of the right type and shape; never read
        if RULE.value.penalized:
            outside = region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, ELIGIBLE) <= 0.0
        worth &= may_cost(
            inter, union, x, y, stride_x, cx, cy, outside, least_iou, least_iou_if_paid, reach, RULE
        )
        if RULE.value.own_pairs_only:
            worth &= region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0
        if tl.max(worth.to(tl.int32)) != 0:
            logit = tl.load(logits + label.to(tl.int64) * stride_c, mask=worth, other=0.0).to(tl.float32)
            if RULE.value.gt_class_only:
                worth &= finite(logit)
            if CONFLICT == "max_iou":
                key = -fraction(inter, union, FAST).to(tl.int32, bitcast=True)
            else:
                cost, _unused = cost_of_pairs(
                    x1, y1, x2, y2, x, y, center_rate(stride_x, RULE, FAST), gx1, gy1, gx2, gy2, cx, cy,
                    inter, union, outside, logit, objectness, background, RULE, FAST,
                )  # fmt: skip
                key = key_of(cost)
            key = tl.where(worth, key, const.NONE)
            least = tl.min(key)
            if least < best:
                best = least
                winner = tl.min(tl.where(key == least, g + lane, const.NONE))
                if CONFLICT != "max_iou":
                    limit = tl.minimum(limit, value_of(best))
                    least_iou, least_iou_if_paid, reach = pair_limits(limit, RULE, FAST)
        g += GTS
    return winner
