"""Gts on the device: how they are read as they were given, with what makes one unusable, and the table that
the first kernel of each family writes of them for the others.
"""

import triton
import triton.language as tl

from . import constants as const
from .maths import box_area, finite


@triton.jit
def load_gts(boxes_ptr, centers_ptr, labels_ptr, mask_ptr, first, gt, valid, C):
    """Boxes, centres (those of the boxes where ``centers_ptr`` is None) and labels of gts.

    x1 = centre x = +inf and label = -1 for gts that take no part: those not ``valid``, those masked out, and
    those with a box, an area or a centre that is not finite, or a label outside [0, C). Gts are those from
    ``first``; ``gt``, the offset from there, takes 32 bits within an image. They must exist even where not
    ``valid``: no load waits for another, none needs a value to stand in.
    """
    box = boxes_ptr + first * 4 + gt * 4
    x1, y1, x2, y2 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    cx, cy = (x1 + x2) * 0.5, (y1 + y2) * 0.5
    if centers_ptr is not None:
        center = centers_ptr + first * 2 + gt * 2
        cx, cy = tl.load(center), tl.load(center + 1)
    label = tl.load(labels_ptr + first + gt)
    if mask_ptr is not None:
        valid &= tl.load(mask_ptr + first + gt) != 0
    valid &= (
        finite(x1)
        & finite(y1)
        & finite(x2)
        & finite(y2)
        & finite(box_area(x1, y1, x2, y2))
        & finite(cx)
        & finite(cy)
    )
    valid &= label.to(tl.uint64) < C.to(tl.uint64)
    return (
        tl.where(valid, x1, float("inf")), tl.where(valid, y1, 0.0), tl.where(valid, x2, 0.0),
        tl.where(valid, y2, 0.0),
        tl.where(valid, cx, float("inf")), tl.where(valid, cy, 0.0), tl.where(valid, label, -1).to(tl.int32),
    )  # fmt: skip


@triton.jit
def store_gts(table_ptr, gt, own, x1, y1, x2, y2, cx, cy, label, image, index):
    """Rows ``gt`` of the table, where ``own``; its columns are named in ``constants``."""
    row = table_ptr + gt * const.GT_COLUMNS
    tl.store(row + const.BOX, x1, mask=own)
    tl.store(row + const.BOX + 1, y1, mask=own)
    tl.store(row + const.BOX + 2, x2, mask=own)
    tl.store(row + const.BOX + 3, y2, mask=own)
    tl.store(row + const.CENTER, cx, mask=own)
    tl.store(row + const.CENTER + 1, cy, mask=own)
    tl.store(row + const.AREA, box_area(x1, y1, x2, y2), mask=own)
    tl.store(row + const.LABEL, label.to(tl.float32, bitcast=True), mask=own)
    tl.store(row + const.IMAGE, image.to(tl.float32, bitcast=True), mask=own)
    tl.store(row + const.INDEX, index.to(tl.float32, bitcast=True), mask=own)


@triton.jit
def load_table(pairs_ptr, gt, mask):
    """x1, y1, x2, y2, centre x, centre y, area and label of gts from the table, whose columns are seen in
    pairs, as int64; label -1 where masked.
    """
    row = pairs_ptr + gt * (const.GT_COLUMNS // 2)
    if mask is None:
        x1, y1 = unpack(tl.load(row + const.BOX // 2))
        x2, y2 = unpack(tl.load(row + const.BOX // 2 + 1))
        cx, cy = unpack(tl.load(row + const.CENTER // 2))
        area, label = unpack(tl.load(row + const.AREA // 2))
    else:
        x1, y1 = unpack(tl.load(row + const.BOX // 2, mask=mask, other=0))
        x2, y2 = unpack(tl.load(row + const.BOX // 2 + 1, mask=mask, other=0))
        cx, cy = unpack(tl.load(row + const.CENTER // 2, mask=mask, other=0))
        area, label = unpack(tl.load(row + const.AREA // 2, mask=mask, other=-1))
    return x1, y1, x2, y2, cx, cy, area, label.to(tl.int32, bitcast=True)


@triton.jit
def load_place(pairs_ptr, gt):
    """Image of a gt and its index within it, from the table as :func:`load_table` sees it."""
    image, index = unpack(tl.load(pairs_ptr + gt * (const.GT_COLUMNS // 2) + const.IMAGE // 2))
    return image.to(tl.int32, bitcast=True), index.to(tl.int32, bitcast=True)


@triton.jit
def unpack(pair):
    """Two float32 of an int64, the lower half first."""
    low, high = pair.to(tl.int32), (pair >> 32).to(tl.int32)
    return low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True)
