"""The second pass: cost and IoU of every (gt, prior) pair in one sweep."""

import triton
import triton.language as tl

from ..gts import load_table
from ..levels import decode, find_logits, find_tile, load_priors, matrix_row
from ..maths import (
    box_area,
    center_rate,
    cost_of_pairs,
    intersection_and_union,
    region_depth,
)


@triton.jit(do_not_specialize=["G", "gts_per_program", "box_stride_b", "box_stride_p", "box_stride_c"])
def cost_pass(
    # outputs [B, G, P]
    cost_ptr, iou_ptr,
    # predictions, and the rows [B, P] of prior_pass
    background_ptr, objectness_ptr, boxes_ptr, priors_ptr, cls_levels,
    # gts: offsets [B + 1] and the table of prior_pass, as int64
    gt_offsets_ptr, gt_table_ptr,
    # sizes and strides, the tuples coded
    G, gts_per_program, starts, cls_strides_b, cls_strides_p, cls_strides_c, box_stride_b, box_stride_p,
    box_stride_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr, ALIGNED_LOGITS: tl.constexpr,
    FAST: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """For a tile of priors of an image and a range of its gts::

        cost[b, g, p] = ((cls * w + iou_cost * w) + centre * w) + penalty, +inf where g may not take p
        iou[b, g, p]  = IoU, -1 where the pair does not count for dynamic_k

    Lanes lie on priors, whose boxes stay in registers; the gts are a loop over scalars.

    Grid: (B, tiles of all levels, ceil(G / gts_per_program)). Scheduling hint: each has an axis of its own;
    an image that is a quotient, as in the other kernels, is not known to be the same in all lanes, which
    takes 5 instructions a pair.
    Twin: ``reference.cost_matrix``.
    """
    P = decode(starts[len(starts) - 1], ALIGNED)
    CANDIDATE: tl.constexpr = RULE.value.candidate
    ELIGIBLE: tl.constexpr = RULE.value.eligible
    image = tl.program_id(0).to(tl.int64)
    level, level_start, first, level_end = find_tile(tl.program_id(1), starts, TILE, ALIGNED)
    p = first + tl.arange(0, TILE)  # [TILE], as all that follows
    in_tile = p < level_end

    gt_first = tl.load(gt_offsets_ptr + image)
    num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
    begin = tl.program_id(2) * gts_per_program
    end = tl.minimum(begin + gts_per_program, G)
    end_real = tl.minimum(end, num_gts)
    # scheduling hint: padding behind the image's gts comes first, so that nothing it needs lives through the
    # loop over pairs
    for g in range(tl.maximum(begin, end_real), end):
        _store_padding(cost_ptr, iou_ptr, matrix_row(image, g, G, P), p, in_tile, TILE)

    # priors that do not count are not even read: nothing they hold can make a NaN
    background = tl.load(background_ptr + image * P + p, mask=in_tile, other=float("inf"))
    counts = background < float("inf")
    x, y, stride_x, stride_y, x1, y1, x2, y2 = load_priors(
        priors_ptr, boxes_ptr, image, p, counts, box_stride_b, box_stride_p, box_stride_c
    )
    area = box_area(x1, y1, x2, y2)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    rate = center_rate(stride_x, RULE, FAST)
    objectness = background  # of the right type and shape; never read
    if objectness_ptr is not None:
        objectness = tl.load(objectness_ptr + image * P + p, mask=counts, other=0.0)
    selectable = counts
    if RULE.value.pool_all:
        selectable = counts & (background >= 0.0)
    logits, stride_p, stride_c = find_logits(
        level, image, level_start, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c, LAYOUT,
        ALIGNED_LOGITS,
    )  # fmt: skip
    logits_of_p = p * stride_p

    for g in range(begin, end_real):
        # scheduling hint: pointers are computed from g; one that is carried through the loop would lose the
        # knowledge that its lanes are contiguous, and with it wide stores
        row = matrix_row(image, g, G, P)
        gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt_first + g, None)
        if label >= 0:
            logit = tl.load(logits + label.to(tl.int64) * stride_c + logits_of_p, mask=counts, other=0.0).to(
                tl.float32
            )

            outside = counts
            if RULE.value.penalized:
                outside = region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, ELIGIBLE) <= 0.0
            inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
            cost, iou = cost_of_pairs(
                x1, y1, x2, y2, x, y, rate, gx1, gy1, gx2, gy2, cx, cy, inter, union, outside,
                logit, objectness, background, RULE, FAST,
            )  # fmt: skip

            pair_counts, pair_selectable = counts, selectable
            if RULE.value.gt_class_only:
                readable = tl.abs(logit) < float("inf")
                pair_counts, pair_selectable = counts & readable, selectable & readable
            if RULE.value.own_pairs_only:
                pair_selectable &= (
                    region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, CANDIDATE) > 0.0
                )
                pair_counts = pair_selectable
            tl.store(cost_ptr + row + p, tl.where(pair_selectable, cost, float("inf")), mask=in_tile)
            tl.store(iou_ptr + row + p, tl.where(pair_counts, iou, -1.0), mask=in_tile)
        else:
            _store_padding(cost_ptr, iou_ptr, row, p, in_tile, TILE)


@triton.jit
def _store_padding(cost_ptr, iou_ptr, row, p, in_tile, TILE: tl.constexpr):
    tl.store(cost_ptr + row + p, tl.full([TILE], float("inf"), tl.float32), mask=in_tile)
    tl.store(iou_ptr + row + p, tl.full([TILE], -1.0, tl.float32), mask=in_tile)
