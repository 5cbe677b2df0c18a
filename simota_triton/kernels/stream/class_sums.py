"""The sum of each prior's background costs, in slot order: one half of ``sums_and_ious``, where all classes
count.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..background import sum_background
from ..levels import decode, find_logits
from ..maths import divide
from .tiles import cells, find_cells


@triton.jit
def class_sums(
    turn, slots_ptr, unreadable_ptr, cls_levels, C, num_tiles, starts, widths, first_tiles,
    cls_strides_b, cls_strides_p, cls_strides_c,
    RULE: tl.constexpr, LAYOUT: tl.constexpr, ALIGNED_LOGITS: tl.constexpr, FAST: tl.constexpr,
    TILE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """For the ``turn``-th ROWS slots of the batch::

        slots[BACKGROUND]   the sum over classes of background_cost(cls_logits[b, p, c]) for candidates

    A prior is *unreadable* if a class logit of it is not finite. It takes no part: its slot gets +inf and the
    box NOWHERE, and ``unreadable[b]`` is set, which tells that the image has such a prior. Logits of priors
    that do not count are not read.

    Twin: ``terms.background_cost`` summed over the classes.
    """
    image, block = divide(turn, num_tiles * (TILE // ROWS))
    image, first = image.to(tl.int64), block * ROWS
    row = tl.arange(0, ROWS)
    PLANES: tl.constexpr = RULE.value.planes
    slots_ptr += (image * num_tiles + first // TILE) * (PLANES * TILE) + first % TILE + row  # [ROWS]
    background = tl.load(slots_ptr + const.BACKGROUND * TILE)
    read = background < float("inf")  # [ROWS]
    if tl.max(read.to(tl.int32), 0) != 0:
        level, level_start, origin, width, left, end = find_cells(
            first // TILE, starts, widths, first_tiles, TILE, WIDTH
        )
        p, _ = cells(tl.multiple_of(first % TILE, ROWS) + row, origin, width, left, end, WIDTH)  # [ROWS]
        if len(cls_levels) == 1:
            level_start = 0
        logits, stride_p, stride_c = find_logits(
            level, image, level_start, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c, LAYOUT,
            ALIGNED_LOGITS,
        )  # fmt: skip
        objectness = background  # of the right type and shape; never read
        if RULE.value.joint:
            objectness = tl.load(slots_ptr + const.OBJECTNESS * TILE)
        logits += p.to(tl.int64) * stride_p
        total, readable = sum_background(
            logits, stride_c, read, objectness, decode(C, ALIGNED_LOGITS), RULE, FAST, ROWS
        )
        unreadable = read & ~readable
        total = tl.where(background < 0.0, -1.0, total)
        tl.store(slots_ptr + const.BACKGROUND * TILE, tl.where(read & ~unreadable, total, float("inf")))
        box = slots_ptr + const.BOX * TILE
        tl.store(box, tl.full([ROWS], const.NOWHERE, tl.float32), mask=unreadable)
        tl.store(box + TILE, tl.full([ROWS], const.NOWHERE, tl.float32), mask=unreadable)
        tl.store(box + 2 * TILE, tl.full([ROWS], -const.NOWHERE, tl.float32), mask=unreadable)
        tl.store(box + 3 * TILE, tl.full([ROWS], -const.NOWHERE, tl.float32), mask=unreadable)
        flag = unreadable_ptr + image + tl.zeros([ROWS], tl.int64)
        tl.store(flag, tl.full([ROWS], 1, tl.int32), mask=unreadable)
