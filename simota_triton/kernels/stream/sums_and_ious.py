"""The second kernel: class sums and the largest IoUs of each gt, side by side. The former wait for memory,
the latter compute.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_place, load_table
from .class_sums import class_sums
from .tiles import of_image
from .top_iou import largest_ious


@triton.jit(
    do_not_specialize=[
        "candidate_topk", "num_tiles", "splits_log2", "minority", "minority_every_log2", "minority_is_gts",
    ]
)  # fmt: skip
def sums_and_ious(
    # output [N, splits, LANES] int32
    top_ious_ptr,
    # scratch, see the guide; slots are changed in place
    slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr,
    # predictions
    cls_levels,
    # who does what, see below
    minority, minority_every_log2, minority_is_gts,
    # sizes and strides, the tuples coded
    C, candidate_topk, num_tiles, splits_log2, starts, widths, first_tiles, cls_strides_b, cls_strides_p,
    cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, ALIGNED_LOGITS: tl.constexpr, FAST: tl.constexpr,
    TILE: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """``top_ious[n, split]``, see ``largest_ious``, of gts that take part, and ``slots`` of ``class_sums``
    where all classes count.

    A prior that ``class_sums`` finds unreadable has its box taken away while others may look at it, so the
    lists of its image may hold it: ``select`` does not use them.

    Grid: (N * splits programs for the gts, and slots / ROWS for the sums). The kind of which there are fewer,
    the *minority*, is spread among the others, so that both are under way together: the first of each
    2^minority_every_log2 programs is one of it, until all ``minority`` of them have had their turn.
    """
    program = tl.program_id(0)
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)
    if RULE.value.all_classes:
        turn = program >> minority_every_log2
        in_minority = (turn << minority_every_log2 == program) & (turn < minority)
        turn = tl.where(in_minority, turn, program - tl.minimum(turn + 1, minority))
        if in_minority == (minority_is_gts != 0):
            _list_ious(
                turn, top_ious_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls, candidate_topk,
                num_tiles,
                splits_log2, RULE, LAYOUT, FAST, TILE, BOUNDS,
            )  # fmt: skip
        else:
            class_sums(
                turn, slots_ptr, unreadable_ptr, cls_levels, C, num_tiles, starts, widths, first_tiles,
                cls_strides_b, cls_strides_p, cls_strides_c, RULE, LAYOUT, ALIGNED_LOGITS, FAST, TILE, WIDTH,
                ROWS,
            )  # fmt: skip
    else:
        _list_ious(
            program, top_ious_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls, candidate_topk,
            num_tiles,
            splits_log2, RULE, LAYOUT, FAST, TILE, BOUNDS,
        )  # fmt: skip


@triton.jit
def _list_ious(
    turn, top_ious_ptr, slots_ptr, points_ptr, tiles_ptr, gt_table_ptr, cls, candidate_topk, num_tiles,
    splits_log2,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """The list of one gt and one split: turn = gt * splits + split."""
    splits = 1 << splits_log2
    split = turn & (splits - 1)
    row = (turn >> splits_log2).to(tl.int64)
    gt = load_table(gt_table_ptr, row, None)
    image, _ = load_place(gt_table_ptr, row)
    image = image.to(tl.int64)
    PLANES: tl.constexpr = RULE.value.planes
    slots_ptr, tiles_ptr = of_image(slots_ptr, tiles_ptr, image, num_tiles, PLANES, TILE)
    best = largest_ious(
        gt, image, slots_ptr, points_ptr, tiles_ptr, cls, gt[7] >= 0, candidate_topk, split, splits,
        num_tiles,
        RULE, LAYOUT, FAST, TILE, BOUNDS,
    )  # fmt: skip
    tl.store(top_ious_ptr + turn.to(tl.int64) * const.LANES + tl.arange(0, const.LANES), best)
