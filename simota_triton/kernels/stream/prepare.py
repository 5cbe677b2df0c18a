"""The first kernel: candidates, tiles and what is known of them, the table of gts, and outputs as they are
without any gt.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_gts, store_gts
from ..levels import decode, find_logits, load_priors, usable_priors
from ..maths import box_area, divide, finite, key_of, region_depth, sigmoid, value_of
from .bounds import meets
from .tiles import cells, find_cells, summary_at


@triton.jit(
    do_not_specialize=[
        "N",
        "num_tiles",
        "slot_stride",
        "point_stride",
        "box_stride_b",
        "box_stride_p",
        "box_stride_c",
        "mask_stride_b",
        "mask_stride_p",
    ]
)
def prepare(
    # outputs [B, P]
    gt_index_ptr, matched_iou_ptr, labels_ptr, claims_ptr,
    # scratch: slots [B, T, planes, TILE], points [T, POINT, TILE], slot_of [P], tiles
    # [B, T / 32, SUMMARY, 32], gts [N, TABLE_COLUMNS], unreadable [B], num_conflicts,
    # cheapest [B, P] (optional)
    slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr, num_conflicts_ptr, cheapest_ptr,
    # predictions; candidate_mask is optional
    boxes_ptr, priors_ptr, candidate_mask_ptr, obj_levels,
    # gts: [N, 4], [N, 2] (optional), [N], [B + 1], [N] (optional)
    gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_offsets_ptr, gt_mask_ptr,
    # sizes and strides, the tuples coded
    C, N, num_tiles, slot_stride, point_stride, starts, widths, first_tiles, obj_strides_b, obj_strides_p,
    box_stride_b, box_stride_p, box_stride_c, mask_stride_b, mask_stride_p,
    # compiled in
    RULE: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr, GTS: tl.constexpr,
):  # fmt: skip
    """For a tile of priors of an image, in slot order::

        slots[:4]  boxes of the priors that count for dynamic_k, boxes that meet no gt for the others; in
        tiles with one that counts slots[4]   0 for candidates, -1 for priors that only count for dynamic_k
        (k_pool "all"), +inf for the others slots[5]   sigmoid(obj_logits), where the score is "joint"
        tiles      see ``tiles.SUMMARY``

    Which priors take part, and which of them are candidates, is as in ``prior_pass`` but for the class
    logits, at which ``sums_and_ious`` and ``select`` look. The points of the priors (slots hold the same priors in
    every image) are written by the programs of image 0, the table of gts by all programs together. Gts are
    held against the tile's box first, GTS at a time, and only those that meet it against its priors, until
    all of these are candidates.

    Grid: (B * tiles,). Twin: ``reference.usable_priors`` and ``terms.in_region``.
    """
    P = decode(starts[len(starts) - 1], False)
    C = decode(C, False)
    REGION: tl.constexpr = RULE.value.candidate
    image_index, tile = divide(tl.program_id(0), num_tiles)
    image = image_index.to(tl.int64)
    place = tl.arange(0, TILE)
    level, level_start, origin, width, left, end = find_cells(tile, starts, widths, first_tiles, TILE, WIDTH)
    p, here = cells(place, origin, width, left, end, WIDTH)
    x, y, stride_x, stride_y, x1, y1, x2, y2 = load_priors(
        priors_ptr, boxes_ptr, image, p, here, box_stride_b, box_stride_p, box_stride_c
    )
    area = box_area(x1, y1, x2, y2)
    usable = here & usable_priors(x, y, stride_x, stride_y, x1, y1, x2, y2)
    if candidate_mask_ptr is not None:
        allowed = candidate_mask_ptr + image * mask_stride_b + p.to(tl.int64) * mask_stride_p
        usable &= tl.load(allowed, mask=here, other=0) != 0
    # slot_stride is passed so that no store is known to be aligned: a wider one would need another layout, by
    # way of shared memory
    slots_ptr += (image * num_tiles + tile) * slot_stride + place
    if obj_levels is not None:
        if len(obj_levels) == 1:
            level_start = 0
        obj_ptr, obj_stride, _unused = find_logits(
            level, image, level_start, obj_levels, obj_strides_b, obj_strides_p, obj_strides_p, "any", False
        )
        obj_logit = tl.load(obj_ptr + p.to(tl.int64) * obj_stride, mask=here, other=0.0).to(tl.float32)
        usable &= finite(obj_logit)
        tl.store(slots_ptr + 5 * TILE, sigmoid(tl.where(usable, obj_logit, 0.0), FAST))

    # the candidate region of any gt
    gt_first = tl.load(gt_offsets_ptr + image)
    num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
    infinity = float("inf")
    box_left, box_right = least(tl.where(usable, x, infinity)), greatest(tl.where(usable, x, -infinity))
    box_top, box_bottom = least(tl.where(usable, y, infinity)), greatest(tl.where(usable, y, -infinity))
    stride = max_from_zero(tl.where(usable, tl.maximum(stride_x, stride_y), 0.0))
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    lane = tl.arange(0, GTS)
    deepest = tl.where(usable, -1.0, 1.0)
    waits = tl.max((deepest <= 0.0).to(tl.int32))
    g = 0
    while (g < num_gts) & (waits != 0):
        gt = tl.minimum(g + lane, num_gts - 1)
        gx1, gy1, gx2, gy2, cx, cy, _ = load_gts(
            gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, gt_first, gt, g + lane < num_gts, C
        )
        near = meets(
            box_left, box_top, box_right, box_bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, REGION
        )
        waiting = tl.where(near, lane, GTS)
        nearest = tl.min(waiting)
        while nearest < GTS:
            box = gt_boxes_ptr + gt_first * 4 + (g + nearest) * 4
            x1_, y1_, x2_, y2_ = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
            cx_, cy_ = (x1_ + x2_) * 0.5, (y1_ + y2_) * 0.5
            if gt_centers_ptr is not None:
                center = gt_centers_ptr + gt_first * 2 + (g + nearest) * 2
                cx_, cy_ = tl.load(center), tl.load(center + 1)
            depth = region_depth(x, y, reach_x, reach_y, x1_, y1_, x2_, y2_, cx_, cy_, REGION)
            deepest = tl.maximum(deepest, depth)
            waiting = tl.where(waiting == nearest, GTS, waiting)
            nearest = tl.min(waiting)
        waits = tl.max((deepest <= 0.0).to(tl.int32))
        g += GTS
    candidate = usable & (deepest > 0.0)

    counts = candidate
    if RULE.value.pool_all:
        counts = usable
    x1, y1 = tl.where(counts, x1, const.NOWHERE), tl.where(counts, y1, const.NOWHERE)
    x2, y2 = tl.where(counts, x2, -const.NOWHERE), tl.where(counts, y2, -const.NOWHERE)
    if tl.max(counts.to(tl.int32)) != 0:  # nobody looks at the boxes of other tiles
        tl.store(slots_ptr, x1)
        tl.store(slots_ptr + TILE, y1)
        tl.store(slots_ptr + 2 * TILE, x2)
        tl.store(slots_ptr + 3 * TILE, y2)
    tl.store(slots_ptr + 4 * TILE, tl.where(candidate, 0.0, tl.where(counts, -1.0, infinity)))

    summary = tiles_ptr + image * (tl.cdiv(num_tiles, 32) * const.SUMMARY * 32) + summary_at(tile)
    largest = max_from_zero(tl.where(counts, area, 0.0))
    small = area <= largest * const.SMALL
    _store_four(summary, least(x1), least(y1), greatest(x2), greatest(y2))
    tl.store(summary + 4 * 32, largest)
    _store_four(
        summary + 5 * 32, least(tl.where(small, x1, const.NOWHERE)), least(tl.where(small, y1, const.NOWHERE)),
        greatest(tl.where(small, x2, -const.NOWHERE)), greatest(tl.where(small, y2, -const.NOWHERE)),
    )  # fmt: skip
    _store_four(summary + 9 * 32, box_left, box_top, box_right, box_bottom)
    tl.store(summary + 13 * 32, stride)
    tl.store(summary + 14 * 32, tl.max(candidate.to(tl.int32)).to(tl.float32))

    out = image * P + p
    tl.store(gt_index_ptr + out, tl.full([TILE], -1, tl.int64), mask=here)
    tl.store(matched_iou_ptr + out, tl.zeros([TILE], tl.float32), mask=here)
    tl.store(labels_ptr + out, tl.zeros([TILE], tl.int64) + C, mask=here)
    tl.store(claims_ptr + out, tl.zeros([TILE], tl.int32), mask=here)
    if cheapest_ptr is not None:
        tl.store(cheapest_ptr + out, tl.full([TILE], const.UNCLAIMED, tl.int64), mask=here)

    if image == 0:
        point = points_ptr + tile * point_stride + place
        tl.store(point, x)
        tl.store(point + TILE, y)
        tl.store(point + 2 * TILE, stride_x)
        tl.store(point + 3 * TILE, stride_y)
        tl.store(point + 4 * TILE, p.to(tl.float32, bitcast=True))
        tl.store(slot_of_ptr + p, tile * TILE + place, mask=here)
        if tile == 0:
            tl.store(num_conflicts_ptr, 0)
    if tile == 0:
        tl.store(unreadable_ptr + image, 0)

    # this program's share of the gts; those before the first image's and behind the last one's belong to none
    row = tl.where(image == 0, 0, gt_first) + tile * GTS
    end_row = tl.where(tl.program_id(0) >= tl.num_programs(0) - num_tiles, N, gt_first + num_gts)
    while row < end_row:
        gt = row + lane
        owned = (gt >= gt_first) & (gt < gt_first + num_gts)
        sx1, sy1, sx2, sy2, scx, scy, label = load_gts(
            gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, 0, tl.minimum(gt, N - 1), owned, C
        )
        image_of = tl.zeros([GTS], tl.int32) + image_index
        store_gts(
            gt_table_ptr,
            gt,
            gt < end_row,
            sx1,
            sy1,
            sx2,
            sy2,
            scx,
            scy,
            label,
            image_of,
            (gt - gt_first).to(tl.int32),
        )
        row += num_tiles * GTS


@triton.jit
def max_from_zero(x):
    """Maximum of float32 >= 0, which are ordered like their bits: one instruction on a warp, a tree of
    shuffles for floats.
    """
    return tl.max(x.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)


@triton.jit
def least(x):
    """Minimum of float32 other than NaN, by integers too."""
    return value_of(tl.min(key_of(x)))


@triton.jit
def greatest(x):
    """Maximum of float32 other than NaN, by integers too."""
    return value_of(tl.max(key_of(x)))


@triton.jit
def _store_four(pointer, x1, y1, x2, y2):
    """A box of a summary."""
    tl.store(pointer, x1)
    tl.store(pointer + 32, y1)
    tl.store(pointer + 2 * 32, x2)
    tl.store(pointer + 3 * 32, y2)
