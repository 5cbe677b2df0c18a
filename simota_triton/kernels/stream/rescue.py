"""The last kernel, where there are ``min_positives``: gts that are short of positives take some."""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_table
from ..levels import decode
from ..maths import box_area, fraction, intersection_and_union
from ..positives import count_positives, hand_over
from .cheapest import costliest_of
from .search import cheapest_priors
from .tiles import load_four, of_image, slot_at


@triton.jit(do_not_specialize=["min_positives", "num_tiles"])
def rescue(
    # outputs [B, P], changed in place
    gt_index_ptr, matched_iou_ptr, labels_ptr,
    # scratch, see the guide; positives [N] int32
    slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, positives_ptr,
    # predictions and offsets of the gts
    cls_levels, gt_offsets_ptr,
    # sizes and strides, the tuples coded
    min_positives, num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The gts of an image in turn: while one has fewer than ``min_positives`` priors, it takes the cheapest
    that can be spared, of equals the lowest. It looks for it as ``select`` does, with a list of one.

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
    slots_ptr, tiles_ptr = of_image(slots_ptr, tiles_ptr, image, num_tiles, PLANES, TILE)
    positives_ptr += gt_first
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)
    count_positives(gt_index_ptr, positives_ptr, num_gts, P, const.COUNTED)
    g = 0
    while g < num_gts:
        gt = load_table(gt_table_ptr, gt_first + g, None)
        gx1, gy1, gx2, gy2, _cx, _cy, gt_area, label = gt
        missing = tl.where(label >= 0, min_positives - tl.load(positives_ptr + g), 0)
        while missing > 0:
            costs, priors = cheapest_priors(
                1, gt, image, slots_ptr, points_ptr, tiles_ptr, cls, num_tiles, gt_index_ptr, positives_ptr,
                min_positives, RULE, LAYOUT, FAST, TILE, BOUNDS,
            )  # fmt: skip
            cost, prior = costliest_of(costs, priors)  # the only one
            missing -= 1
            if cost == const.NONE:
                missing = 0
            else:
                hand_over(gt_index_ptr, positives_ptr, prior, g)
                slot = tl.load(slot_of_ptr + prior)
                x1, y1, x2, y2 = load_four(slots_ptr + slot_at(slot, PLANES, TILE), TILE)
                area = box_area(x1, y1, x2, y2)
                inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
                tl.store(matched_iou_ptr + prior, fraction(inter, union, FAST))
                tl.store(labels_ptr + prior, label.to(tl.int64))
        g += 1
