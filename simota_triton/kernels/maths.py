"""The terms of the cost on the device, one function each, as in ``terms.py``. Elementwise on tiles and
scalars of float32.

``FAST`` picks the GPU's approximate units (``MUFU``: 1 instruction where Triton's own functions take 5 to 27)
and rests on inline PTX, which Triton's interpreter cannot run; without it the same formulas use Triton's
functions. Where an ulp can change an assignment (the IoU, probabilities) a step of refinement leaves less
than half an ulp and 2^-20 of one (see :func:`fraction`).

Kernels are compiled with ``enable_fp_fusion=False``: a multiplication and an addition are fused only where
this file says so, whatever the version of Triton.
"""

import triton
import triton.language as tl

from . import constants as const


@triton.jit
def reciprocal(x, FAST: tl.constexpr):
    """1 / x within 1 ulp."""
    if FAST:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
def log2(x, FAST: tl.constexpr):
    """Binary logarithm; within 2^-22 for x in [0.5, 2], within 2 ulp elsewhere."""
    if FAST:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def exp2(x, FAST: tl.constexpr):
    """2^x within 2 ulp."""
    if FAST:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
def square_root(x, FAST: tl.constexpr):
    """Square root within 1 ulp."""
    if FAST:
        return tl.inline_asm_elementwise(
            "sqrt.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.sqrt(x)


@triton.jit
def minus_product(c, a, b):
    """The value of c - a * b with one rounding. Triton before 3.7 spends an instruction on a unary minus, but
    none on a factor -1.
    """
    return tl.fma(a * -1.0, b, c)


@triton.jit
def fraction(a, b, FAST: tl.constexpr):
    """The quotient a / b of a <= b, b >= 0; 0 where a <= 0, or b is 0 or overflowed.

    From areas of 2^-100 on a / a is 1, and any quotient is within 1 ulp: the nearest float32 where the
    reciprocal is the nearest (always without ``FAST``), else that or its neighbour on the other side of a /
    b. The residual of a quotient from a reciprocal within 1 ulp is exact in a fused multiply-add; adding it
    back leaves an error of 2^-45 before rounding, which decides only where a / b lies as close to the middle
    of two float32. The last step saturates to [0, 1], which also turns the NaN of 0 * inf into 0. Outside
    2^-126 < b < 2^126 (boxes with sides of 1e-19 or 1e19 pixels) the result is 0.
    """
    if FAST:
        r = reciprocal(b, FAST)
        q = a * r
        residual = minus_product(a, b, q)
        return tl.inline_asm_elementwise(
            "fma.rn.sat.f32 $0, $1, $2, $3;",
            "=f,f,f,f",
            [residual, r, q],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:
        return tl.where(a > 0.0, tl.div_rn(a, b), 0.0)


@triton.jit
def root(x, FAST: tl.constexpr):
    """Square root of x in [0, 1], of subnormal x too: products of two small probabilities are.

    The root of 1 is 1, any is within 1 ulp, and all but those that lie within some 2^-20 ulp of the middle of
    two float32 are the nearest (all without ``FAST``). A step of Heron's with the exact residual, on x *
    2^60, which is normal or 0.
    """
    if FAST:
        wide = x * 2.0**60
        r = tl.inline_asm_elementwise(
            "rsqrt.approx.ftz.f32 $0, $1;", "=f,f", [wide], dtype=tl.float32, is_pure=True, pack=1
        )
        r = tl.minimum(r, 2.0**60)  # of 0, so that 0 * r is 0
        s = wide * r
        return tl.fma(minus_product(wide, s, s), r * 0.5, s) * 2.0**-30
    else:
        return tl.sqrt_rn(x)


@triton.jit
def minus_log_of_rest(p, FAST: tl.constexpr):
    """-log(1 - p) of p in [0, 1] within 1e-6 relative, however small p; +inf at 1.

    log2 has an absolute error near 1, which a sum over hundreds of classes would add up. Up to p = 0.3 the
    series of 2 * atanh(p / (2 - p)) stands in for it.
    """
    s = p * reciprocal(2.0 - p, FAST)
    t = s * s
    series = tl.fma(t, tl.fma(t, tl.fma(t, tl.fma(t, 2.0 / 9.0, 2.0 / 7.0), 2.0 / 5.0), 2.0 / 3.0), 2.0) * s
    return tl.where(p < 0.3, series, log2(1.0 - p, FAST) * -const.LN2)


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """1 / (1 + exp(-x)) with both steps rounded as PyTorch rounds them: log(1 - p) magnifies an ulp near p =
    1.
    """
    return fraction(1.0, 1.0 + exp2(x * -const.LOG2E, FAST), FAST)


@triton.jit
def softplus_and_sigmoid(x, FAST: tl.constexpr):
    """log(1 + exp(x)), within 2^-20 * max(1, |x|), and sigmoid(x), within some ulp.

    Both come from one exponential, and no branch on the sign of x is needed: below -87, where the exponential
    would overflow, both are 0 to float32's precision. Of a very negative x nothing but that error is left of
    the softplus, which may then be below 0. It is harmless there: a background cost multiplies it by the
    square of the sigmoid, a pair's cost adds it to -x * iou, and both sums are clamped at 0.
    """
    x = tl.maximum(x, -87.0)
    t = 1.0 + exp2(x * -const.LOG2E, FAST)
    return tl.fma(log2(t, FAST), const.LN2, x), reciprocal(t, FAST)


@triton.jit
def divide(value, by):
    """Quotient and remainder of two int32 >= 0, in two thirds of the instructions of a signed division."""
    quotient = (value.to(tl.uint32) // by.to(tl.uint32)).to(tl.int32)
    return quotient, value - quotient * by


@triton.jit
def finite(x):
    """Neither NaN nor infinite."""
    return tl.abs(x) < float("inf")


@triton.jit
def region_depth(x, y, reach_x, reach_y, gx1, gy1, gx2, gy2, cx, cy, REGION: tl.constexpr):
    """How deep points lie in a region of gts, in float32; positive strictly inside, which is
    ``terms.in_region``.

    One number takes fewer instructions than a conjunction of comparisons, which the compiler packs into bits
    and back. No point lies in a gt with gx1 = cx = +inf.
    """
    in_box = tl.minimum(_depth(x, gx1, gx2), _depth(y, gy1, gy2))
    in_center = tl.minimum(_depth(x, cx - reach_x, cx + reach_x), _depth(y, cy - reach_y, cy + reach_y))
    if REGION == "all":
        return tl.where(gx1 < float("inf"), 1.0, -1.0) + x * 0.0
    elif REGION == "box":
        return in_box
    elif REGION == "center":
        return in_center
    elif REGION == "box_or_center":
        return tl.maximum(in_box, in_center)
    else:
        return tl.minimum(in_box, in_center)


@triton.jit
def _depth(position, low, high):
    return tl.minimum(position - low, high - position)


@triton.jit
def box_area(x1, y1, x2, y2):
    """Area of xyxy boxes; an inverted box has none."""
    return tl.maximum(x2 - x1, 0.0) * tl.maximum(y2 - y1, 0.0)


@triton.jit
def guard(area, RULE: tl.constexpr):
    """An area that something is divided by."""
    UNION_RULE: tl.constexpr = RULE.value.union_rule
    if UNION_RULE == "add":
        return area + RULE.value.union_eps
    elif UNION_RULE == "max":
        return tl.maximum(area, RULE.value.union_eps)
    else:
        return area


@triton.jit
def intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE: tl.constexpr):
    """Intersection and guarded union of xyxy boxes of known areas.

    A negative height is left to the quotient, which saturates to 0, unless GIoU needs the union.
    """
    IOU_COST: tl.constexpr = RULE.value.iou_cost
    width = tl.maximum(tl.minimum(x2, gx2) - tl.maximum(x1, gx1), 0.0)
    height = tl.minimum(y2, gy2) - tl.maximum(y1, gy1)
    if IOU_COST == "giou":
        height = tl.maximum(height, 0.0)
    inter = width * height
    return inter, guard(area + gt_area - inter, RULE)


@triton.jit
def giou_gap(x1, y1, x2, y2, gx1, gy1, gx2, gy2, union, RULE: tl.constexpr, FAST: tl.constexpr):
    """The share of the enclosing box that the union leaves empty: IoU - GIoU."""
    width = tl.maximum(tl.maximum(x2, gx2) - tl.minimum(x1, gx1), 0.0)
    height = tl.maximum(tl.maximum(y2, gy2) - tl.minimum(y1, gy1), 0.0)
    enclosing = guard(width * height, RULE)
    return fraction(tl.maximum(enclosing - union, 0.0), enclosing, FAST)


@triton.jit
def center_rate(stride, RULE: tl.constexpr, FAST: tl.constexpr):
    """log2(center_base) / stride: how fast the centre prior grows with the distance, a prior's own."""
    return RULE.value.log2_center_base * reciprocal(stride, FAST)


@triton.jit
def center_prior(dx, dy, rate, RULE: tl.constexpr, FAST: tl.constexpr):
    """center_base ** (distance / stride - center_offset); +inf past about 41 strides, which ``pair_cost``
    clamps.

    Args:
        dx: From the gt's centre to the prior's point along x.
        dy: The same along y.
        rate: See :func:`center_rate`.
    """
    distance = square_root(tl.fma(dx, dx, dy * dy), FAST)
    return exp2(tl.fma(distance, rate, -RULE.value.center_offset * RULE.value.log2_center_base), FAST)


@triton.jit
def class_ends(x, objectness, RULE: tl.constexpr, FAST: tl.constexpr):
    """Probability of a class and its BCE at the targets 0 and 1: the ends of a line in the target.

    Args:
        x: Logit, or probability where the score is ``"prob"``.
        objectness: sigmoid(objectness logit) of the prior; read where the score is ``"joint"``.
    """
    SCORE: tl.constexpr = RULE.value.score
    CLS_COST: tl.constexpr = RULE.value.cls_cost
    p = x
    if SCORE == "logit":
        if CLS_COST == "bce":
            # summed over the classes without a weight, so that the small terms of a softplus count
            zero = tl.maximum(x, 0.0) + minus_log_of_rest(sigmoid(-tl.abs(x), FAST), FAST)
        else:
            zero, p = softplus_and_sigmoid(x, FAST)
        one = zero - x
    else:
        if SCORE == "sigmoid":
            p = sigmoid(x, FAST)
        if SCORE == "joint":
            p = root(sigmoid(x, FAST) * objectness, FAST)
        clamped = tl.minimum(tl.maximum(p, RULE.value.prob_clamp), 1.0 - RULE.value.prob_clamp)
        zero = tl.minimum(minus_log_of_rest(clamped, FAST), -const.LOG_LIMIT)
        one = tl.minimum(log2(clamped, FAST) * -const.LN2, -const.LOG_LIMIT)
    return p, zero, one


@triton.jit
def add_background_cost(total, x, objectness, RULE: tl.constexpr, FAST: tl.constexpr):
    """``total`` and the cost of a class whose target is 0. Arguments as :func:`class_ends`."""
    CLS_COST: tl.constexpr = RULE.value.cls_cost
    p, zero, _ = class_ends(x, objectness, RULE, FAST)
    if CLS_COST == "soft_bce":
        return tl.fma(zero, p * p, total)
    elif CLS_COST == "vfl":
        return tl.fma(zero, p * p * const.VFL_ALPHA, total)
    else:
        return total + zero


@triton.jit
def class_cost(x, objectness, iou, background, RULE: tl.constexpr, FAST: tl.constexpr):
    """Class term of pairs: max(0, background - background of the gt's class + own).

    Args:
        x: Logit (probability) of the gt's class.
        objectness: As in :func:`class_ends`.
        iou: IoU of the pair.
        background: Sum of the background costs of the prior's classes; not read for the gt's class alone.
    """
    SCORE: tl.constexpr = RULE.value.score
    CLS_COST: tl.constexpr = RULE.value.cls_cost
    p, zero, one = class_ends(x, objectness, RULE, FAST)
    if RULE.value.gt_class_only:
        background = 0.0
    if CLS_COST == "bce":
        if RULE.value.all_classes:
            background -= zero
        cls = background + one
    else:
        negative = p * p
        if CLS_COST == "vfl":
            negative *= const.VFL_ALPHA
        if RULE.value.all_classes:
            background = minus_product(background, zero, negative)
        if SCORE == "logit":
            bce = minus_product(zero, x, iou)
        else:
            bce = tl.fma(iou, one, (1.0 - iou) * zero)
        if CLS_COST == "vfl":
            weight = tl.where(iou > 0.0, iou, negative)
        else:
            weight = (iou - p) * (iou - p)
        cls = tl.fma(bce, weight, background)
    return tl.maximum(cls, 0.0)


@triton.jit
def pair_cost(cls, iou, giou_gap, center, outside, RULE: tl.constexpr, FAST: tl.constexpr):
    """((cls * w + iou cost * w) + centre * w) + penalty in this order, clamped to COST_LIMIT.

    Args:
        cls: Class term.
        iou: IoU.
        giou_gap: See :func:`giou_gap`; read where the IoU cost is ``"giou"``.
        center: Centre prior; read where it has a weight.
        outside: Pairs that pay the penalty; read where there is one.
    """
    IOU_COST: tl.constexpr = RULE.value.iou_cost
    cost = cls * RULE.value.cls_weight
    if IOU_COST == "log":
        cost = tl.fma(log2(iou + RULE.value.log_eps, FAST), const.LN2 * -RULE.value.iou_weight, cost)
    else:
        cost = tl.fma(1.0 - (iou - giou_gap), RULE.value.iou_weight, cost)
    if RULE.value.centered:
        cost = tl.fma(center, RULE.value.center_weight, cost)
    if RULE.value.penalized:
        cost = tl.where(outside, cost + RULE.value.penalty, cost)
    return tl.minimum(cost, const.COST_LIMIT)


@triton.jit
def cost_of_pairs(
    x1, y1, x2, y2, x, y, rate, gx1, gy1, gx2, gy2, cx, cy, inter, union, outside, logit, objectness,
    background,
    RULE: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """Cost and IoU of pairs, the same steps in every kernel, so that all of them round alike.

    Args:
        x1, y1, x2, y2: Boxes of the priors.
        x, y: Their points.
        rate: See :func:`center_rate`, of the stride along x.
        gx1, gy1, gx2, gy2, cx, cy: Boxes and centres of the gts.
        inter, union: See :func:`intersection_and_union`.
        outside: Pairs that pay the penalty; read where there is one.
        logit, objectness, background: See :func:`class_cost`.
    """
    iou = fraction(inter, union, FAST)
    gap = giou_gap(x1, y1, x2, y2, gx1, gy1, gx2, gy2, union, RULE, FAST)
    center = center_prior(x - cx, y - cy, rate, RULE, FAST)
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
