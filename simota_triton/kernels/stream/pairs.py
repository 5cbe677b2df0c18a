"""The cost of a few pairs, and its key: the same steps as in ``cost_pass``, so that every path rounds
alike.
"""

import triton
import triton.language as tl

from ..maths import center_prior, class_cost, fraction, giou_gap, pair_cost, reciprocal


@triton.jit
def cost_of_pairs(
    x1, y1, x2, y2, x, y, stride_x, gx1, gy1, gx2, gy2, cx, cy, inter, union, outside, logit, objectness, background,
    RULE: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Cost and IoU of pairs, from their intersection and union; see ``maths`` for the rest."""
    iou = fraction(inter, union, FAST)
    gap = giou_gap(x1, y1, x2, y2, gx1, gy1, gx2, gy2, union, RULE, FAST)
    center = center_prior(
        x - cx, y - cy, RULE.value.log2_center_base * reciprocal(stride_x, FAST), RULE, FAST
    )
    cls = class_cost(logit, objectness, iou, background, RULE, FAST)
    return pair_cost(cls, iou, gap, center, outside, RULE, FAST), iou


@triton.jit
def key_of(value):
    """float32 -> int32 with the same order; -0.0 is 0.0. Twin: ``matching.sortable``."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(key):
    """The inverse of :func:`key_of`."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
