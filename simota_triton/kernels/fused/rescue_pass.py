"""What ``min_positives`` asks for, on the matrices that ``cost_pass`` wrote."""

import triton
import triton.language as tl

from .. import constants as const
from ..levels import matrix_row
from ..maths import key_of
from ..positives import can_be_spared, count_positives, hand_over


@triton.jit(do_not_specialize=["G", "P", "min_positives"])
def rescue_pass(
    # [B, P], changed in place
    gt_index_ptr, matched_iou_ptr,
    # scratch [B, G] int32; cost and IoU [B, G, P]
    positives_ptr, cost_ptr, iou_ptr,
    G, P, min_positives,
    # compiled in; the rule for the constants that are part of it
    RULE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gts of an image in turn: while one has fewer than ``min_positives`` priors, it takes the cheapest
    that can be spared, of equals the lowest.

    Grid: (B,), since each gt's turn waits for the one before; see ``positives`` for what that asks of memory.
    Twin: ``matching.rescue``.
    """
    image = tl.program_id(0).to(tl.int64)
    gt_index_ptr += image * P
    matched_iou_ptr += image * P
    positives_ptr += image * G
    count_positives(gt_index_ptr, positives_ptr, G, P, BLOCK)
    lane = tl.arange(0, BLOCK)
    g = 0
    while g < G:
        row = matrix_row(image, g, G, P)
        missing = min_positives - tl.load(positives_ptr + g)
        while missing > 0:
            best = tl.full([], const.UNTAKEN, tl.int32)
            prior = tl.full([], const.NONE, tl.int32)
            first = 0
            while first < P:
                p = first + lane
                key = key_of(tl.load(cost_ptr + row + p, mask=p < P, other=float("inf")))
                cheaper = key < best
                if tl.max(cheaper.to(tl.int32)) != 0:
                    key = tl.where(
                        cheaper & can_be_spared(gt_index_ptr, positives_ptr, p, cheaper, min_positives),
                        key,
                        const.UNTAKEN,
                    )
                    least = tl.min(key)
                    if least < best:
                        best = least
                        prior = tl.min(tl.where(key == least, p, const.NONE))
                first += BLOCK
            missing -= 1
            if best == const.UNTAKEN:
                missing = 0
            else:
                hand_over(gt_index_ptr, positives_ptr, prior, g)
                tl.store(matched_iou_ptr + prior, tl.load(iou_ptr + row + prior))
        g += 1
