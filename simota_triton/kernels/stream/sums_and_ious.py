"""The second kernel: class sums and the largest IoUs of each gt, side by side. The former wait for memory,
the latter compute.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_place, load_table
from .class_sums import class_sums
from .top_iou import largest_ious


@triton.jit(
    do_not_specialize=[
        "candidate_topk",
        "num_tiles",
        "splits_log2",
        "minority",
        "minority_every_log2",
        "minority_is_gts",
    ]
)
def sums_and_ious(
    # output [N, splits, 32] int32
    top_ptr,
    # scratch, see ``prepare``; slots are changed in place, gts as int64
    slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr,
    # predictions
    cls_levels,
    # who is what, see below
    minority, minority_every_log2, minority_is_gts,
    # sizes and strides, the tuples coded
    C, candidate_topk, num_tiles, splits_log2, starts, widths, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, ALIGNED_LOGITS: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """``top[n, split]`` of ``largest_ious``, of real gts, and ``slots`` of ``class_sums`` where all classes
    count.

    A prior that ``class_sums`` loses has its box taken away while others may look at it, so the lists of its
    image may hold it: ``select`` does not use them.

    Grid: (N * splits programs for the gts, and slots / ROWS for the sums). Those that are fewer are spread
    among the others: they are the first of each 2^minority_every_log2 programs, so that both kinds are under way
    together.
    """
    program = tl.program_id(0)
    if RULE.value.all_classes:
        turn = program >> minority_every_log2
        in_minority = (turn << minority_every_log2 == program) & (turn < minority)
        turn = tl.where(in_minority, turn, program - tl.minimum(turn + 1, minority))
        if in_minority == (minority_is_gts != 0):
            _list_ious(
                turn, top_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls_levels, candidate_topk, num_tiles, splits_log2, starts,
                first_tiles, cls_strides_b, cls_strides_p, cls_strides_c, RULE, LAYOUT, FAST, TILE, BOUNDS,
            )  # fmt: skip
        else:
            class_sums(
                turn, slots_ptr, unreadable_ptr, cls_levels, C, num_tiles, starts, widths, first_tiles, cls_strides_b, cls_strides_p,
                cls_strides_c, RULE, LAYOUT, ALIGNED_LOGITS, FAST, TILE, WIDTH, ROWS,
            )  # fmt: skip
    else:
        _list_ious(
            program, top_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls_levels, candidate_topk, num_tiles, splits_log2, starts,
            first_tiles, cls_strides_b, cls_strides_p, cls_strides_c, RULE, LAYOUT, FAST, TILE, BOUNDS,
        )  # fmt: skip


@triton.jit
def _list_ious(
    turn, top_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls_levels, candidate_topk, num_tiles, splits_log2, starts,
    first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The list of a gt and a split, one after the other."""
    splits = 1 << splits_log2
    split = turn & (splits - 1)
    gt = (turn >> splits_log2).to(tl.int64)
    gx1, gy1, gx2, gy2, cx, cy, gt_area, label = load_table(gt_table_ptr, gt, None)
    image, _ = load_place(gt_table_ptr, gt)
    image = image.to(tl.int64)
    PLANES: tl.constexpr = RULE.value.planes
    slots_ptr += image * num_tiles * (PLANES * TILE)
    tiles_ptr += image * (tl.cdiv(num_tiles, 32) * const.SUMMARY * 32)
    best = largest_ious(
        gx1, gy1, gx2, gy2, cx, cy, gt_area, label, image, slots_ptr, points_ptr, tiles_ptr, cls_levels,
        label >= 0, candidate_topk, split, splits, num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
        RULE, LAYOUT, FAST, TILE, BOUNDS,
    )  # fmt: skip
    tl.store(top_ptr + turn.to(tl.int64) * const.LANES + tl.arange(0, const.LANES), best)
