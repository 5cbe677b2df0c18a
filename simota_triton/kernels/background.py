"""What a prior costs as background: the sum over its classes of the class cost at the target 0.

Classes are summed in an order that no tile size changes: COLUMNS sums side by side, which are added up as a
tree.
"""

import triton
import triton.language as tl

from . import constants as const
from .maths import add_background_cost


@triton.jit
def sum_background(
    logits, stride_c, read, objectness, C, RULE: tl.constexpr, FAST: tl.constexpr, ROWS: tl.constexpr
):
    """Background costs of all classes, summed, and whether all logits are finite; 0 where not ``read``.

    The sum is in [0, COST_LIMIT] and never -0.0, whatever its summands were rounded to (a softplus may come
    out below 0), so that kernels can store flags outside of that range in its place. A sum that overflows is
    COST_LIMIT: the prior is expensive, not unreadable.

    Args:
        logits: Pointers to class 0 of the priors, [ROWS].
        stride_c: Stride of the classes.
        read: [ROWS] bool.
        objectness: [ROWS], see ``maths.class_ends``.
        C: Number of classes.

    Twin: ``terms.background_cost`` summed over the classes.
    """
    column = tl.arange(0, const.COLUMNS)
    total = tl.zeros([ROWS, const.COLUMNS], tl.float32)  # [ROWS, COLUMNS]
    pointer = logits[:, None] + (column * stride_c)[None, :]
    for c in range(0, C, const.COLUMNS):
        present = read[:, None] & (column < C - c)[None, :]
        logit = tl.load(pointer, mask=present, other=const.ABSENT).to(tl.float32)
        added = add_background_cost(total, logit, objectness[:, None], RULE, FAST)
        if RULE.value.clamped:  # a clamped probability is never free
            added = tl.where(present, added, total)
        total = added
        total = tl.fma(logit, 0.0, total)  # NaN from a logit that is not finite on, the same otherwise
        pointer += stride_c * const.COLUMNS
    total = _sum_columns(total, ROWS)
    return tl.minimum(tl.maximum(total, 0.0) + 0.0, const.COST_LIMIT), total == total


@triton.jit
def _sum_columns(x, ROWS: tl.constexpr):
    """[ROWS, COLUMNS] -> [ROWS], as a tree: column i and i + 8, then i and i + 4, ...

    A sum over an axis of two has one order, wherever the two lie; within a warp it needs no shared memory.
    """
    half: tl.constexpr = const.COLUMNS // 2
    for i in tl.static_range(3):
        x = tl.sum(tl.reshape(x, [ROWS, 2, half >> i]), 1)
    return tl.sum(x, 1)
