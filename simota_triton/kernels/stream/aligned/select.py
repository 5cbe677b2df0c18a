"""The second kernel: the priors that each gt selects, and its claims on them."""

import triton
import triton.language as tl

from ... import constants as const
from ...aligned_maths import angle_of, overlap_area, overlap_of_pairs, region_box, shared_and_joined
from ...gts import load_place, load_table
from ...levels import decode
from ..tiles import load_four, of_image, slot_at
from .search import key_of_positive, largest_metrics, metric_of_key, own_region


@triton.jit(do_not_specialize=["topk", "num_tiles"])
def select_aligned(
    # outputs: [B, P] each, and dynamic_k [N]
    gt_index_ptr, matched_iou_ptr, claims_ptr, scores_ptr, dynamic_k_ptr,
    # scratch, see the guide
    slots_ptr, points_ptr, slot_of_ptr, tiles_ptr, gt_table_ptr, num_conflicts_ptr, conflicts_ptr,
    cheapest_claims_ptr,
    # predictions
    cls_levels,
    # sizes and strides, the tuples coded
    topk, num_tiles, starts, first_tiles, cls_strides_b, cls_strides_p, cls_strides_c,
    # compiled in
    RULE: tl.constexpr, LAYOUT: tl.constexpr, FAST: tl.constexpr, TILE: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    """For a gt: its ``topk`` priors of the largest metric above 0, the lower prior first where metrics are
    equal, of its region, or of all priors, of which then those in its region count (``pool_all``). With
    ``at_least_one`` a gt that has none of these takes its largest metric, wherever it lies. ::

        claims[b, p] += 1 for each of them

    A claim is written to the outputs at once, its metric to ``scores``. It stands unless another gt claims
    the same prior: the second claimant adds the prior to the list of conflicts, and ``resolve_aligned``
    decides.

    Grid: (N,). Twin: ``task_aligned.matching.topk_matching`` on rows of ``metric_matrix``.
    """
    P = decode(starts[len(starts) - 1], False)
    PLANES: tl.constexpr = RULE.value.planes
    row = tl.program_id(0)
    gt = load_table(gt_table_ptr, row.to(tl.int64), None)
    gx1, gy1, gx2, gy2, _cx, _cy, _gt_area, label = gt
    image, index = load_place(gt_table_ptr, row.to(tl.int64))
    image = image.to(tl.int64)
    slots_ptr, tiles_ptr = of_image(slots_ptr, tiles_ptr, image, num_tiles, PLANES, TILE)
    cls = (starts, first_tiles, cls_levels, cls_strides_b, cls_strides_p, cls_strides_c)
    k = tl.where(label >= 0, topk, 0)
    tl.store(dynamic_k_ptr + row, k.to(tl.int64))

    keys, priors = largest_metrics(
        k, gt, image, slots_ptr, points_ptr, tiles_ptr, cls, num_tiles, RULE, RULE.value.pool_all, LAYOUT,
        FAST, TILE, BOUNDS,
    )  # fmt: skip
    taken = (priors >= 0) & (keys != const.NONE)  # [LANES]
    slot = tl.load(slot_of_ptr + priors, mask=taken, other=0)
    if RULE.value.pool_all:
        point = points_ptr + slot_at(slot, const.POINT, TILE)
        taken &= own_region(point, region_box(gx1, gy1, gx2, gy2, RULE), RULE, TILE)
    if RULE.value.at_least_one:
        lonely = tl.max(taken.to(tl.int32)) == 0
        others, elsewhere = largest_metrics(
            tl.where(lonely, tl.minimum(k, 1), 0), gt, image, slots_ptr, points_ptr, tiles_ptr, cls,
            num_tiles, RULE, True, LAYOUT, FAST, TILE, const.LANES,
        )  # fmt: skip
        keys, priors = tl.where(lonely, others, keys), tl.where(lonely, elsewhere, priors)
        taken = tl.where(lonely, (priors >= 0) & (keys != const.NONE), taken)
        slot = tl.load(slot_of_ptr + priors, mask=taken, other=0)

    x1, y1, x2, y2 = load_four(slots_ptr + slot_at(slot, PLANES, TILE), TILE)
    inter, union = shared_and_joined(
        x1, y1, x2, y2, overlap_area(x1, y1, x2, y2, RULE), gx1, gy1, gx2, gy2,
        overlap_area(gx1, gy1, gx2, gy2, RULE), RULE,
    )  # fmt: skip
    gt_angle = angle_of(gx1, gy1, gx2, gy2, RULE, FAST)
    overlap = overlap_of_pairs(x1, y1, x2, y2, gx1, gy1, gx2, gy2, gt_angle, inter, union, RULE, FAST)
    out = image * P + priors
    _write_claims(gt_index_ptr, matched_iou_ptr, scores_ptr, out, taken, index, overlap, metric_of_key(keys))
    if RULE.value.compares_claims:
        # the lower gt where overlaps are equal
        claim = (key_of_positive(overlap).to(tl.int64) << 32) | index
        tl.atomic_min(cheapest_claims_ptr + out, claim, mask=taken, sem="relaxed")
    before = tl.atomic_add(claims_ptr + out, 1, mask=taken, sem="relaxed")
    second = taken & (before == 1)
    if tl.max(second.to(tl.int32)) != 0:
        number = num_conflicts_ptr + tl.zeros([const.LANES], tl.int32)
        entry = tl.atomic_add(number, 1, mask=second, sem="relaxed")
        tl.store(conflicts_ptr + entry, (image << 32) | slot, mask=second)


@triton.jit
def _write_claims(gt_index_ptr, matched_iou_ptr, scores_ptr, out, taken, index, overlap, metric):
    """The gt's claims as if they stood: its index, overlaps and metrics, at ``out`` [LANES] where
    ``taken``.
    """
    tl.store(gt_index_ptr + out, tl.zeros([const.LANES], tl.int64) + index, mask=taken)
    tl.store(matched_iou_ptr + out, overlap, mask=taken)
    tl.store(scores_ptr + out, metric, mask=taken)
