"""The first pass: what belongs to a prior alone, whether it is a candidate and its cost as background."""

import triton
import triton.language as tl

from .. import constants as const
from ..background import sum_background
from ..gts import load_gts, store_gts
from ..levels import decode, find_logits, find_tile, load_priors, usable_priors
from ..maths import divide, finite, region_depth, sigmoid


@triton.jit(
    do_not_specialize=[
        "C",
        "num_tiles",
        "box_stride_b",
        "box_stride_p",
        "box_stride_c",
        "mask_stride_b",
        "mask_stride_p",
    ]
)
def prior_pass(
    # outputs [B, P]
    background_ptr, objectness_ptr, gt_table_ptr,
    # predictions; candidate_mask is optional, obj_levels are the class logits' levels
    boxes_ptr, priors_ptr, candidate_mask_ptr, cls_levels, obj_levels,
    # gts: [N, 4], [N, 2], [N], [B + 1], [N] (optional)
    gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_offsets_ptr, gt_mask_ptr,
    # sizes and strides, the tuples coded
    C, num_tiles, starts, cls_strides_b, cls_strides_p, cls_strides_c, obj_strides_b, obj_strides_p,
    box_stride_b, box_stride_p, box_stride_c, mask_stride_b, mask_stride_p,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, ALIGNED: tl.constexpr, ALIGNED_LOGITS: tl.constexpr,
    FAST: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """For a tile of priors of an image::

        background[b, p] = sum over classes of background_cost(cls_logits[b, p, c])
                           0 in place of it where only the gt's class counts
                           -1 where the prior only counts for dynamic_k (k_pool "all")
                           +inf where it takes no part
        objectness[b, p] = sigmoid(obj_logits[b, p, 0]), where the score is "joint"

    A prior takes part if its box, area, point, objectness and (where they are summed) class logits are
    finite, its strides above 0, the mask allows it, and its point lies in the candidate region of any gt of
    the image. Logits of others are not read.

    Grid: (B * tiles of all levels,). Twin: ``Problem.usable_priors``, ``terms.in_region`` and
    ``terms.background_cost``.
    """
    P = decode(starts[len(starts) - 1], ALIGNED)
    C = decode(C, ALIGNED_LOGITS)
    REGION: tl.constexpr = RULE.value.candidate
    image_index, tile = divide(tl.program_id(0), num_tiles)
    image = image_index.to(tl.int64)
    level, level_start, first, end = find_tile(tile, starts, ROWS, ALIGNED)
    p = first + tl.arange(0, ROWS)  # [ROWS], as all that follows
    in_tile = p < end

    x, y, stride_x, stride_y, x1, y1, x2, y2 = load_priors(
        priors_ptr, boxes_ptr, image, p, in_tile, box_stride_b, box_stride_p, box_stride_c
    )
    usable = in_tile & usable_priors(x, y, stride_x, stride_y, x1, y1, x2, y2)
    if candidate_mask_ptr is not None:
        mask = candidate_mask_ptr + image * mask_stride_b + p.to(tl.int64) * mask_stride_p
        usable &= tl.load(mask, mask=in_tile, other=0) != 0
    objectness = x  # of the right type and shape; never read
    if obj_levels is not None:
        obj_ptr, obj_stride, _ = find_logits(
            level, image, level_start, obj_levels, obj_strides_b, obj_strides_p, obj_strides_p, "any", False
        )
        obj_logit = tl.load(obj_ptr + p.to(tl.int64) * obj_stride, mask=in_tile, other=0.0).to(tl.float32)
        usable &= finite(obj_logit)
        objectness = sigmoid(obj_logit, FAST)
        tl.store(objectness_ptr + image * P + p, objectness, mask=in_tile)

    # the candidate region of any gt
    gt_first = tl.load(gt_offsets_ptr + image)
    num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    lane = tl.arange(0, const.GTS)
    deepest = tl.full([ROWS, const.GTS], -1.0, tl.float32)  # [ROWS, GTS]
    for g in range(0, num_gts, const.GTS):
        gt = tl.minimum(g + lane, num_gts - 1)  # [GTS]
        exists = g + lane < num_gts
        gx1, gy1, gx2, gy2, cx, cy, label = load_gts(
            gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, gt_first, gt, exists, C
        )
        if tile == 0:
            image_of = tl.zeros([const.GTS], tl.int32) + image_index
            store_gts(
                gt_table_ptr, gt_first + gt, exists, gx1, gy1, gx2, gy2, cx, cy, label, image_of, g + lane
            )
        depth = region_depth(
            x[:, None], y[:, None], reach_x[:, None], reach_y[:, None], gx1[None, :], gy1[None, :],
            gx2[None, :], gy2[None, :], cx[None, :], cy[None, :], REGION,
        )  # fmt: skip
        deepest = tl.maximum(deepest, depth)
    candidate = usable & (tl.max(deepest, 1) > 0.0)

    background = tl.zeros([ROWS], tl.float32)
    takes_part = usable
    if RULE.value.all_classes:
        read = usable if RULE.value.pool_all else candidate
        if tl.max(read.to(tl.int32), 0) != 0:
            logits, stride_p, stride_c = find_logits(
                level, image, level_start, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c, LAYOUT,
                ALIGNED_LOGITS,
            )  # fmt: skip
            logits += p.to(tl.int64) * stride_p
            background, readable = sum_background(logits, stride_c, read, objectness, C, RULE, FAST, ROWS)
            takes_part &= readable
    if RULE.value.pool_all:
        result = tl.where(takes_part, tl.where(candidate, background, -1.0), float("inf"))
    else:
        result = tl.where(takes_part & candidate, background, float("inf"))
    tl.store(background_ptr + image * P + p, result, mask=in_tile)
