"""The first kernel: which priors are candidates, what is known of tiles, the table of gts, and the outputs as
they are without any gt.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_gts, store_gts
from ..levels import decode, find_logits, load_priors, usable_priors
from ..maths import box_area, divide, finite, key_of, region_depth, sigmoid, value_of
from .bounds import meets
from .tiles import cells, find_cells, of_image, store_four, summary_at


@triton.jit(
    do_not_specialize=[
        "N", "num_tiles", "slot_stride", "point_stride", "box_stride_b", "box_stride_p", "box_stride_c",
        "mask_stride_b", "mask_stride_p",
    ]
)  # fmt: skip
def prepare(
    # outputs [B, P], scores of the task-aligned rule alone
    gt_index_ptr, matched_iou_ptr, labels_ptr, claims_ptr, scores_ptr,
    # scratch, see the guides, of which some is one rule's alone
    slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr, num_conflicts_ptr,
    cheapest_claims_ptr, largest_ptr,
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
    """For a tile of an image: the slots of its priors, its summary, the outputs of its priors as they are
    without any gt, and a share of the table of gts. The planes are named in ``constants``.

    Which priors take part, and which of them are candidates (the task-aligned rule has none), is as in
    ``prior_pass`` but for the class logits, at which later kernels look. The points of the priors, and which
    slot a prior has, are the same in every image: programs of image 0 write them.

    Grid: (B * T,). Twin: ``Problem.usable_priors`` and ``terms.in_region``.
    """
    P = decode(starts[len(starts) - 1], False)
    C = decode(C, False)
    image_index, tile = divide(tl.program_id(0), num_tiles)
    image = image_index.to(tl.int64)
    place = tl.arange(0, TILE)  # [TILE], as all that follows
    level, level_start, origin, width, left, end = find_cells(tile, starts, widths, first_tiles, TILE, WIDTH)
    p, here = cells(place, origin, width, left, end, WIDTH)
    x, y, stride_x, stride_y, x1, y1, x2, y2 = load_priors(
        priors_ptr, boxes_ptr, image, p, here, box_stride_b, box_stride_p, box_stride_c
    )
    usable = here & usable_priors(x, y, stride_x, stride_y, x1, y1, x2, y2)
    if candidate_mask_ptr is not None:
        allowed = candidate_mask_ptr + image * mask_stride_b + p.to(tl.int64) * mask_stride_p
        usable &= tl.load(allowed, mask=here, other=0) != 0
    # scheduling hint: slot_stride and point_stride follow from compiled-in sizes but are arguments, so that
    # the compiler cannot see that stores are aligned; wider ones would need another layout of registers, by
    # way of shared memory
    slot = slots_ptr + (image * num_tiles + tile) * slot_stride + place
    if obj_levels is not None:
        if len(obj_levels) == 1:
            level_start = 0
        obj_ptr, obj_stride, _unused = find_logits(
            level, image, level_start, obj_levels, obj_strides_b, obj_strides_p, obj_strides_p, "any", False
        )
        obj_logit = tl.load(obj_ptr + p.to(tl.int64) * obj_stride, mask=here, other=0.0).to(tl.float32)
        usable &= finite(obj_logit)
        tl.store(slot + const.OBJECTNESS * TILE, sigmoid(tl.where(usable, obj_logit, 0.0), FAST))

    gt_first = tl.load(gt_offsets_ptr + image)
    num_gts = (tl.load(gt_offsets_ptr + image + 1) - gt_first).to(tl.int32)
    points = _points_of_tile(x, y, stride_x, stride_y, usable)
    candidate = usable
    if RULE.value.candidates:
        candidate = usable & _in_any_region(
            x, y, stride_x, stride_y, usable, points, gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr,
            gt_mask_ptr, gt_first, num_gts, C, RULE, GTS,
        )  # fmt: skip
    counts = candidate
    if RULE.value.pool_all:
        counts = usable
    area = box_area(x1, y1, x2, y2)
    x1, y1 = tl.where(counts, x1, const.NOWHERE), tl.where(counts, y1, const.NOWHERE)
    x2, y2 = tl.where(counts, x2, -const.NOWHERE), tl.where(counts, y2, -const.NOWHERE)
    if tl.max(counts.to(tl.int32)) != 0:  # nobody looks at the boxes of other tiles
        store_four(slot + const.BOX * TILE, x1, y1, x2, y2, TILE)
    if RULE.value.candidates:
        flag = tl.where(candidate, 0.0, tl.where(counts, -1.0, float("inf")))
        tl.store(slot + const.BACKGROUND * TILE, flag)
    _slots, summaries = of_image(slots_ptr, tiles_ptr, image, num_tiles, 0, TILE)
    _store_summary(
        summaries + summary_at(tile), x1, y1, x2, y2, tl.where(counts, area, 0.0), points, candidate
    )

    out = image * P + p
    tl.store(gt_index_ptr + out, tl.full([TILE], -1, tl.int64), mask=here)
    tl.store(matched_iou_ptr + out, tl.zeros([TILE], tl.float32), mask=here)
    tl.store(labels_ptr + out, tl.zeros([TILE], tl.int64) + C, mask=here)
    tl.store(claims_ptr + out, tl.zeros([TILE], tl.int32), mask=here)
    if scores_ptr is not None:
        tl.store(scores_ptr + out, tl.zeros([TILE], tl.float32), mask=here)
    if cheapest_claims_ptr is not None:
        tl.store(cheapest_claims_ptr + out, tl.full([TILE], const.UNCLAIMED, tl.int64), mask=here)
    if image == 0:
        point = points_ptr + tile * point_stride + place
        store_four(point, x, y, stride_x, stride_y, TILE)
        tl.store(point + const.PRIOR * TILE, p.to(tl.float32, bitcast=True))
        tl.store(slot_of_ptr + p, tile * TILE + place, mask=here)
        if tile == 0:
            tl.store(num_conflicts_ptr, 0)
    if unreadable_ptr is not None:  # noqa: SIM102 - decided by the compiler, and not on the device
        if tile == 0:
            tl.store(unreadable_ptr + image, 0)
    _store_share_of_gts(
        gt_table_ptr, largest_ptr, gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, gt_first,
        num_gts, image_index, tile, num_tiles, N, C, RULE, GTS,
    )  # fmt: skip


@triton.jit
def _points_of_tile(x, y, stride_x, stride_y, usable):
    """The box around the points of the priors that are ``usable``, and their largest stride."""
    left, right = least(tl.where(usable, x, float("inf"))), greatest(tl.where(usable, x, float("-inf")))
    top, bottom = least(tl.where(usable, y, float("inf"))), greatest(tl.where(usable, y, float("-inf")))
    stride = max_from_zero(tl.where(usable, tl.maximum(stride_x, stride_y), 0.0))
    return left, top, right, bottom, stride


@triton.jit
def _in_any_region(
    x, y, stride_x, stride_y, usable, points, gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr,
    gt_first, num_gts, C, RULE: tl.constexpr, GTS: tl.constexpr,
):  # fmt: skip
    """Whether priors [TILE] that are ``usable`` lie in the candidate region of any gt of the image.

    Gts are held against the tile's ``points`` first, GTS at a time, and only those that meet them against its
    priors, one after the other, until all of these are candidates.
    """
    REGION: tl.constexpr = RULE.value.candidate
    left, top, right, bottom, stride = points
    reach_x, reach_y = RULE.value.center_radius * stride_x, RULE.value.center_radius * stride_y
    lane = tl.arange(0, GTS)
    deepest = tl.where(usable, -1.0, 1.0)  # [TILE]
    any_outside = tl.max((deepest <= 0.0).to(tl.int32))
    g = 0
    while (g < num_gts) & (any_outside != 0):
        gt = tl.minimum(g + lane, num_gts - 1)  # [GTS]
        gx1, gy1, gx2, gy2, cx, cy, _label = load_gts(
            gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, gt_first, gt, g + lane < num_gts, C
        )
        near = meets(left, top, right, bottom, stride, gx1, gy1, gx2, gy2, cx, cy, RULE, REGION)  # [GTS]
        waiting = tl.where(near, lane, GTS)
        first = tl.min(waiting)
        while first < GTS:
            box = gt_boxes_ptr + gt_first * 4 + (g + first) * 4
            x1, y1, x2, y2 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
            center_x, center_y = (x1 + x2) * 0.5, (y1 + y2) * 0.5
            if gt_centers_ptr is not None:
                center = gt_centers_ptr + gt_first * 2 + (g + first) * 2
                center_x, center_y = tl.load(center), tl.load(center + 1)
            depth = region_depth(x, y, reach_x, reach_y, x1, y1, x2, y2, center_x, center_y, REGION)
            deepest = tl.maximum(deepest, depth)
            waiting = tl.where(waiting == first, GTS, waiting)
            first = tl.min(waiting)
        any_outside = tl.max((deepest <= 0.0).to(tl.int32))
        g += GTS
    return deepest > 0.0


@triton.jit
def _store_summary(summary, x1, y1, x2, y2, area, points, candidate):
    """What is known of a tile, from the boxes and areas [TILE] of its priors: NOWHERE and 0 of those that do
    not count.
    """
    largest = max_from_zero(area)
    small = area <= largest * const.SMALL
    store_four(
        summary + const.BOX * const.GROUP, least(x1), least(y1), greatest(x2), greatest(y2), const.GROUP
    )
    tl.store(summary + const.LARGEST_AREA * const.GROUP, largest)
    store_four(
        summary + const.SMALL_BOX * const.GROUP,
        least(tl.where(small, x1, const.NOWHERE)), least(tl.where(small, y1, const.NOWHERE)),
        greatest(tl.where(small, x2, -const.NOWHERE)), greatest(tl.where(small, y2, -const.NOWHERE)),
        const.GROUP,
    )  # fmt: skip
    left, top, right, bottom, stride = points
    store_four(summary + const.POINTS * const.GROUP, left, top, right, bottom, const.GROUP)
    tl.store(summary + const.STRIDE * const.GROUP, stride)
    any_candidate = tl.max(candidate.to(tl.int32)).to(tl.float32)
    tl.store(summary + const.ANY_CANDIDATE * const.GROUP, any_candidate)


@triton.jit
def _store_share_of_gts(
    gt_table_ptr, largest_ptr, gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, gt_first, num_gts,
    image_index, tile, num_tiles, N, C, RULE: tl.constexpr, GTS: tl.constexpr,
):  # fmt: skip
    """The program's share of the table of gts, and zeros in ``largest``: of its image's gts, GTS out of
    num_tiles * GTS. Gts before the first image's and behind the last one's belong to no image, and are left
    to the first and the last image's programs.
    """
    lane = tl.arange(0, GTS)
    row = tl.where(image_index == 0, 0, gt_first) + tile * GTS
    end_row = tl.where(tl.program_id(0) >= tl.num_programs(0) - num_tiles, N, gt_first + num_gts)
    while row < end_row:
        gt = row + lane  # [GTS]
        owned = (gt >= gt_first) & (gt < gt_first + num_gts)
        x1, y1, x2, y2, cx, cy, label = load_gts(
            gt_boxes_ptr, gt_centers_ptr, gt_labels_ptr, gt_mask_ptr, 0, tl.minimum(gt, N - 1), owned, C
        )
        image_of = tl.zeros([GTS], tl.int32) + image_index
        index = (gt - gt_first).to(tl.int32)
        store_gts(gt_table_ptr, gt, gt < end_row, x1, y1, x2, y2, cx, cy, label, image_of, index)
        if largest_ptr is not None:
            for i in range(RULE.value.topk2 + 1):
                at = largest_ptr + gt * (RULE.value.topk2 + 1) + i
                tl.store(at, tl.zeros([GTS], tl.int64), mask=gt < end_row)
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
