"""The third kernel: priors that several gts claim."""

import triton
import triton.language as tl

from ... import constants as const
from ...aligned_maths import (
    angle_of,
    in_region,
    metric_of_pairs,
    overlap_area,
    overlap_of_pairs,
    region_box,
    shared_and_joined,
)
from ...gts import load_table
from ...levels import decode
from ...maths import finite
from ..bounds import below
from ..tiles import find_logits_of_tile, load_four, slot_at
from .search import key_of_positive


@triton.jit(do_not_specialize=["num_tiles"])
def resolve_aligned(
    # outputs [B, P]
    gt_index_ptr, matched_iou_ptr, scores_ptr,
    # scratch, see the guide
    slots_ptr, points_ptr, gt_table_ptr, num_conflicts_ptr, conflicts_ptr, cheapest_claims_ptr,
    # predictions and offsets of the gts
    cls_levels, gt_offsets_ptr,
    # sizes and strides, the tuples coded
    num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, GTS: tl.constexpr,
):  # fmt: skip
    """For each conflict, a prior that several gts claim, in turn over the programs: the gt of the largest
    overlap, among equals the lower one, written with its overlap and metric over whatever its claimants
    wrote. It is one of

    * "inside": those in whose region the prior lies, and its claimants;
    * "all": all of its image;
    * "matched": its claimants, which ``select_aligned`` has compared already.

    Grid: any. Twin: the conflicts of ``task_aligned.matching.topk_matching``.
    """
    P = decode(starts[len(starts) - 1], False)
    PLANES: tl.constexpr = RULE.value.planes
    CONFLICT: tl.constexpr = RULE.value.conflict
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)
    count = tl.load(num_conflicts_ptr)
    turn = tl.program_id(0)
    # scheduling hint: loaded beside the count, not behind it; the grid has at most as many programs as the
    # list has room, so the address exists
    entry = tl.load(conflicts_ptr + turn)
    while turn < count:
        image, slot = entry >> 32, entry.to(tl.int32)
        gt_first = tl.load(gt_offsets_ptr + image)
        box = load_four(slots_ptr + image * num_tiles * (PLANES * TILE) + slot_at(slot, PLANES, TILE), TILE)
        point = points_ptr + slot_at(slot, const.POINT, TILE)
        p = tl.load(point + const.PRIOR * TILE).to(tl.int32, bitcast=True)
        out = image * P + p
        logits, stride_p, stride_c = find_logits_of_tile(slot // TILE, image, cls, LAYOUT)
        logits += p.to(tl.int64) * stride_p
        best, winner = tl.full([], const.NONE, tl.int32), tl.full([], 0, tl.int32)
        if RULE.value.compares_claims:
            claim = tl.load(cheapest_claims_ptr + out)
            best, winner = (claim >> 32).to(tl.int32), (claim & 0xFFFFFFFF).to(tl.int32)
        if CONFLICT != "matched":
            num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
            winner = _largest_overlap(
                best, winner, tl.load(matched_iou_ptr + out), box, point, logits, stride_c, gt_table_ptr,
                gt_first, num_gts, RULE, FAST, TILE, GTS,
            )  # fmt: skip
        gx1, gy1, gx2, gy2, _cx, _cy, _gt_area, label = load_table(gt_table_ptr, gt_first + winner, None)
        inter, union = _shared_and_joined(box, gx1, gy1, gx2, gy2, RULE)
        overlap = _overlap(box, gx1, gy1, gx2, gy2, inter, union, RULE, FAST)
        logit = tl.load(logits + label.to(tl.int64) * stride_c).to(tl.float32)
        tl.store(gt_index_ptr + out, winner.to(tl.int64))
        tl.store(matched_iou_ptr + out, overlap)
        tl.store(scores_ptr + out, metric_of_pairs(logit, overlap, RULE, FAST))
        turn += tl.num_programs(0)
        entry = tl.load(conflicts_ptr + turn, mask=turn < count, other=0)


@triton.jit
def _largest_overlap(
    best, winner, known, box, point, logits, stride_c, gt_table_ptr, gt_first, num_gts,
    RULE: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, GTS: tl.constexpr,
):  # fmt: skip
    """The gt of the largest overlap with a prior, of those in whose region it lies ("inside") or of all; the
    lower one among equals.

    The overlap of one claim is known, so a gt matters only if its own may be as large: GTS gts at a time are
    held against that by their IoU, and overlaps are formed of those that are left.

    Args:
        best, winner: Key of the overlap and index of a gt that wins unless another is better; NONE and any.
        known: The overlap of one of the claimants.
        box: x1, y1, x2, y2 of the prior.
        point: Where the planes of its point begin.
        logits, stride_c: The prior's logit of class c lies at logits + c * stride_c.
        gt_table_ptr, gt_first, num_gts: Table of gts, those of the image and how many they are.
    """
    CONFLICT: tl.constexpr = RULE.value.conflict
    x, y, stride_x, stride_y = load_four(point, TILE)
    lane = tl.arange(0, GTS)
    least = known * (1.0 - const.OVERLAP_SLACK)
    g = 0
    while g < num_gts:
        mask = g + lane < num_gts  # [GTS], as all that follows
        gx1, gy1, gx2, gy2, _cx, _cy, _gt_area, label = load_table(gt_table_ptr, gt_first + g + lane, mask)
        inter, union = _shared_and_joined(box, gx1, gy1, gx2, gy2, RULE)
        worth = (label >= 0) & (inter > 0.0) & ~below(inter, union, least)
        if CONFLICT == "inside":
            rx1, ry1, rx2, ry2 = region_box(gx1, gy1, gx2, gy2, RULE)
            worth &= in_region(x, y, stride_x, stride_y, rx1, ry1, rx2, ry2, RULE)
        if tl.max(worth.to(tl.int32)) != 0:
            overlap = _overlap(box, gx1, gy1, gx2, gy2, inter, union, RULE, FAST)
            logit = tl.load(logits + label.to(tl.int64) * stride_c, mask=worth, other=0.0).to(tl.float32)
            worth &= finite(logit) & (overlap > 0.0)
            key = tl.where(worth, key_of_positive(overlap), const.NONE)
            least_key = tl.min(key)
            first = tl.min(tl.where(key == least_key, g + lane, const.NONE))
            if (least_key < best) | ((least_key == best) & (least_key != const.NONE) & (first < winner)):
                best, winner = least_key, first
        g += GTS
    return winner


@triton.jit
def _shared_and_joined(box, gx1, gy1, gx2, gy2, RULE: tl.constexpr):
    """``aligned_maths.shared_and_joined`` of a box and gts."""
    x1, y1, x2, y2 = box
    area, gt_area = overlap_area(x1, y1, x2, y2, RULE), overlap_area(gx1, gy1, gx2, gy2, RULE)
    return shared_and_joined(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)


@triton.jit
def _overlap(box, gx1, gy1, gx2, gy2, inter, union, RULE: tl.constexpr, FAST: tl.constexpr):
    """``aligned_maths.overlap_of_pairs`` of a box and gts."""
    x1, y1, x2, y2 = box
    gt_angle = angle_of(gx1, gy1, gx2, gy2, RULE, FAST)
    return overlap_of_pairs(x1, y1, x2, y2, gx1, gy1, gx2, gy2, gt_angle, inter, union, RULE, FAST)
