"""The third kernel: dynamic k of each gt, its k cheapest priors, and its claims on them."""

import triton
import triton.language as tl

from .. import constants as const
from ..gts import load_place, load_table
from ..levels import decode
from ..maths import box_area, fraction, intersection_and_union, value_of
from .search import cheapest_priors
from .tiles import load_four, of_image, slot_at
from .top_iou import largest_ious


@triton.jit(do_not_specialize=["k_scale", "candidate_topk", "num_tiles", "splits"])
def select(
    # outputs: [B, P] each, and dynamic_k [N]
    gt_index_ptr, matched_iou_ptr, labels_ptr, claims_ptr, dynamic_k_ptr,
    # scratch, see the guide
    top_ious_ptr, slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, unreadable_ptr,
    num_conflicts_ptr,
    conflicts_ptr, conflict_costs_ptr, cheapest_claims_ptr,
    # predictions
    cls_levels,
    # sizes and strides, the tuples coded; k_scale as the bits of a float64
    k_scale, candidate_topk, num_tiles, splits, starts, first_tiles, cls_strides_b, cls_strides_p,
    cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """For a gt::

        dynamic_k = max(1, floor(k_scale * sum of its candidate_topk largest IoUs)), the sum in float64
        claims[b, p] += 1 for each p of its dynamic_k cheapest priors, the lower prior first where costs are
        equal

    A claim is written to the outputs at once. It stands unless another gt claims the same prior: the second
    claimant adds the prior to the list of conflicts, and ``resolve`` decides. Where the cheapest claim wins
    ("matched"), claims are compared as they are made.

    Grid: (N,). Twin: ``matching.dynamic_k_matching`` on rows of ``reference.cost_matrix``.
    """
    P = decode(starts[len(starts) - 1], False)
    row = tl.program_id(0)
    gt = load_table(gt_table_ptr, row.to(tl.int64), None)
    label = gt[7]
    image, index = load_place(gt_table_ptr, row.to(tl.int64))
    image = image.to(tl.int64)
    PLANES: tl.constexpr = RULE.value.planes
    slots_ptr, tiles_ptr = of_image(slots_ptr, tiles_ptr, image, num_tiles, PLANES, TILE)
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)

    total = _sum_of_lists(top_ious_ptr + row.to(tl.int64) * splits * const.LANES, candidate_topk, splits)
    if RULE.value.all_classes:
        # the lists of such an image may hold priors that take no part
        again = tl.load(unreadable_ptr + image) != 0
        top_ious = largest_ious(
            gt, image, slots_ptr, points_ptr, tiles_ptr, cls, again & (label >= 0), candidate_topk, 0, 1,
            num_tiles,
            RULE, LAYOUT, FAST, TILE, const.LANES,
        )  # fmt: skip
        total = tl.where(again, _sum(top_ious), total)
    scaled = total * k_scale.to(tl.float64, bitcast=True)
    k = tl.where(label >= 0, tl.maximum(scaled.to(tl.int32), 1), 0)
    tl.store(dynamic_k_ptr + row, k.to(tl.int64))

    costs, priors = cheapest_priors(
        k,
        gt,
        image,
        slots_ptr,
        points_ptr,
        tiles_ptr,
        cls,
        num_tiles,
        None,
        None,
        0,
        RULE,
        LAYOUT,
        FAST,
        TILE,
        BOUNDS,
    )

    taken = (priors >= 0) & (costs != const.NONE)  # [LANES]
    out = image * P + priors
    slot = tl.load(slot_of_ptr + priors, mask=taken, other=0)
    _write_claims(
        gt_index_ptr, matched_iou_ptr, labels_ptr, out, taken, slot, slots_ptr, gt, index, RULE, FAST, TILE
    )
    if cheapest_claims_ptr is not None:
        claim = (costs.to(tl.int64) << 32) | index  # the lower gt where costs are equal
        tl.atomic_min(cheapest_claims_ptr + out, claim, mask=taken, sem="relaxed")
    before = tl.atomic_add(claims_ptr + out, 1, mask=taken, sem="relaxed")
    _note_conflicts(
        num_conflicts_ptr, conflicts_ptr, conflict_costs_ptr, taken & (before == 1), image, slot, costs
    )


@triton.jit
def _write_claims(
    gt_index_ptr, matched_iou_ptr, labels_ptr, out, taken, slot, slots_ptr, gt, index,
    RULE: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The gt's claims as if they stood: its index, IoU and label, at ``out`` [LANES] where ``taken``."""
    PLANES: tl.constexpr = RULE.value.planes
    gx1, gy1, gx2, gy2, _cx, _cy, gt_area, label = gt
    x1, y1, x2, y2 = load_four(slots_ptr + slot_at(slot, PLANES, TILE), TILE)
    area = box_area(x1, y1, x2, y2)
    inter, union = intersection_and_union(x1, y1, x2, y2, area, gx1, gy1, gx2, gy2, gt_area, RULE)
    tl.store(gt_index_ptr + out, tl.zeros([const.LANES], tl.int64) + index, mask=taken)
    tl.store(matched_iou_ptr + out, fraction(inter, union, FAST), mask=taken)
    tl.store(labels_ptr + out, tl.zeros([const.LANES], tl.int64) + label, mask=taken)


@triton.jit
def _note_conflicts(num_conflicts_ptr, conflicts_ptr, conflict_costs_ptr, second, image, slot, costs):
    """Adds the priors [LANES] of which this gt is the ``second`` claimant to the list of conflicts, with what
    they cost it: so each prior is noted once, however many claim it.
    """
    if tl.max(second.to(tl.int32)) != 0:
        number = num_conflicts_ptr + tl.zeros([const.LANES], tl.int32)
        entry = tl.atomic_add(number, 1, mask=second, sem="relaxed")
        tl.store(conflicts_ptr + entry, (image << 32) | slot, mask=second)
        tl.store(conflict_costs_ptr + entry, value_of(costs), mask=second)


@triton.jit
def _sum_of_lists(top_ious_ptr, candidate_topk, splits):
    """The sum of the ``candidate_topk`` largest values of a gt's lists, in float64."""
    if splits == 1:
        total = _sum(tl.load(top_ious_ptr + tl.arange(0, const.LANES)))
    else:
        lane = tl.arange(0, const.LISTS)
        values = tl.load(top_ious_ptr + lane, mask=lane < splits * const.LANES, other=0)  # [LISTS]
        total = tl.full([], 0.0, tl.float64)
        missing = candidate_topk
        largest = tl.max(values)
        while (missing > 0) & (largest > 0):
            equal = values == largest
            count = tl.minimum(tl.sum(equal.to(tl.int32)), missing)
            total += largest.to(tl.float32, bitcast=True).to(tl.float64) * count
            missing -= count
            values = tl.where(equal, 0, values)
            largest = tl.max(values)
    return total


@triton.jit
def _sum(bits):
    """The sum of float32 values, given as their bits, in float64."""
    return tl.sum(bits.to(tl.float32, bitcast=True).to(tl.float64))
