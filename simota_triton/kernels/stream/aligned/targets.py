"""The last kernels: which priors gts keep (``topk2``), and the targets of the classification.

They go through the priors of an image, BLOCK a program. Until the end ``scores`` holds metrics. A row of
``largest``, [N, 1 + topk2] int64, is a gt's: column 0 is two int32, the bits of the largest metric and
overlap of its priors; column r is the r-th largest *rank* among them, 0 if there is none, where ::

    rank = bits of the metric * 2^32 + (2^32 - 1 - prior)

which orders priors by their metric, the lower one first where metrics are equal. Bits of float32 from 0 on
are ordered like the numbers, and a maximum does not depend on the order in which it is taken.
"""

import triton
import triton.language as tl

from ...aligned_maths import share_of
from ...gts import load_table
from ...maths import divide


@triton.jit(do_not_specialize=["P", "blocks", "turn"])
def rank_owned(
    # [B, P] each, and [N, 1 + topk2]
    gt_index_ptr, scores_ptr, largest_ptr,
    # offsets of the gts
    gt_offsets_ptr,
    # sizes
    P, blocks, turn,
    # compiled in
    RULE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Column ``turn`` of ``largest`` from column ``turn`` - 1: the largest rank of each gt's priors that is
    below, or, in turn 1, of all.

    Grid: (B * blocks,). Twin: ``task_aligned.matching._largest`` among the priors that a gt owns.
    """
    _image, p, out, _gt_index, owned, row = _owned(gt_index_ptr, gt_offsets_ptr, P, blocks, BLOCK)
    rank = _rank(scores_ptr, p, out, owned)
    column = largest_ptr + row * (RULE.value.topk2 + 1) + turn
    if turn > 1:
        owned &= rank < tl.load(column - 1, mask=owned, other=0)
    tl.atomic_max(column, rank, mask=owned, sem="relaxed")


@triton.jit(do_not_specialize=["P", "blocks"])
def largest_owned(
    # [B, P] each, and [N, 1 + topk2]
    gt_index_ptr, matched_iou_ptr, scores_ptr, largest_ptr,
    # offsets of the gts
    gt_offsets_ptr,
    # sizes
    P, blocks,
    # compiled in
    RULE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Column 0 of ``largest``: the largest metric and the largest overlap of each gt's priors. With ``topk2``
    priors below the gt's rank of that number become background first.

    Grid: (B * blocks,). Twin: ``task_aligned.matching.topk_matching``.
    """
    TOPK2: tl.constexpr = RULE.value.topk2
    _image, p, out, _gt_index, owned, row = _owned(gt_index_ptr, gt_offsets_ptr, P, blocks, BLOCK)
    if TOPK2 > 0:
        least = tl.load(largest_ptr + row * (TOPK2 + 1) + TOPK2, mask=owned, other=0)
        left = owned & (_rank(scores_ptr, p, out, owned) < least)
        tl.store(gt_index_ptr + out, tl.full([BLOCK], -1, tl.int64), mask=left)
        tl.store(matched_iou_ptr + out, tl.zeros([BLOCK], tl.float32), mask=left)
        tl.store(scores_ptr + out, tl.zeros([BLOCK], tl.float32), mask=left)
        owned &= ~left
    metric = tl.load(scores_ptr + out, mask=owned, other=0.0)
    overlap = tl.load(matched_iou_ptr + out, mask=owned, other=0.0)
    halves = largest_ptr.to(tl.pointer_type(tl.int32)) + row * (2 * TOPK2 + 2)
    tl.atomic_max(halves, metric.to(tl.int32, bitcast=True), mask=owned, sem="relaxed")
    tl.atomic_max(halves + 1, overlap.to(tl.int32, bitcast=True), mask=owned, sem="relaxed")


@triton.jit(do_not_specialize=["P", "blocks"])
def write_targets(
    # [B, P] each
    gt_index_ptr, matched_iou_ptr, labels_ptr, scores_ptr,
    # scratch, see the guide
    largest_ptr, gt_table_ptr,
    # offsets of the gts
    gt_offsets_ptr,
    # sizes
    P, blocks,
    # compiled in
    RULE: tl.constexpr, FAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For each prior that has a gt its label and ::

        score = metric / (largest metric of the gt + norm_eps) * largest overlap of the gt

    Grid: (B * blocks,). Twin: ``task_aligned.terms.target``.
    """
    TOPK2: tl.constexpr = RULE.value.topk2
    _image, _p, out, _gt_index, owned, row = _owned(gt_index_ptr, gt_offsets_ptr, P, blocks, BLOCK)
    metric = tl.load(scores_ptr + out, mask=owned, other=0.0)
    halves = largest_ptr.to(tl.pointer_type(tl.float32)) + row * (2 * TOPK2 + 2)
    largest_metric = tl.load(halves, mask=owned, other=1.0)
    largest_overlap = tl.load(halves + 1, mask=owned, other=0.0)
    score = share_of(metric, largest_metric, RULE, FAST) * largest_overlap
    tl.store(scores_ptr + out, score, mask=owned)
    label = load_table(gt_table_ptr, row, owned)[7]
    tl.store(labels_ptr + out, label.to(tl.int64), mask=owned)


@triton.jit
def _owned(gt_index_ptr, gt_offsets_ptr, P, blocks, BLOCK: tl.constexpr):
    """A program's priors: image, p, place in [B, P], index of the gt, whether there is one, and its row."""
    image, block = divide(tl.program_id(0), blocks)
    image = image.to(tl.int64)
    p = block * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    out = image * P + p
    gt_index = tl.load(gt_index_ptr + out, mask=p < P, other=-1)
    return image, p, out, gt_index, gt_index >= 0, tl.load(gt_offsets_ptr + image) + gt_index


@triton.jit
def _rank(scores_ptr, p, out, owned):
    """Ranks of priors by the metrics in ``scores``, above 0."""
    bits = tl.load(scores_ptr + out, mask=owned, other=0.0).to(tl.int32, bitcast=True)
    return (bits.to(tl.int64) << 32) | (0xFFFFFFFF - p.to(tl.int64))
