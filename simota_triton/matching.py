"""From cost and IoU matrices to an assignment: dynamic k, the k cheapest priors of each gt, conflicts, and
what ``min_positives`` asks for.

Plain torch on dense [B, G, P] matrices, without a host sync and without a loop over images or (but for
``min_positives``) gts, so that it can stand behind a kernel in a CUDA graph. Sums of integers and minima of
packed integer keys make it deterministic.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import fail, floating, shape_of, tensor
from .config import MAX_TOPK, SimOTAConfig

_LOW32 = 0xFFFFFFFF

FIXED_POINT = 57
"""Bits behind the point of IoUs that are summed as integers."""


class Matching(NamedTuple):
    """What every backend returns.

    Attributes:
        gt_index: [B, P] int64, index of the gt within its image, -1 for background.
        matched_iou: [B, P] float32, IoU with that gt, 0 for background.
        dynamic_k: [B, G] int64 (or [N], in the form of the gts), how many priors the gt asked for, 0 for
            padding.
        claims: [B, P] int32, how many gts selected the prior before conflicts were resolved; 0 also where
            ``min_positives`` alone gave the prior to a gt.
        labels: [B, P] int64, class of that gt, C for background; None where a backend leaves it to its
            caller.
        scores: [B, P] float32, the task-aligned rule's target for the score of that class, 0 for background;
            None of SimOTA.
    """

    gt_index: Tensor
    matched_iou: Tensor
    dynamic_k: Tensor
    claims: Tensor
    labels: Tensor | None = None
    scores: Tensor | None = None


def sortable(cost: Tensor) -> Tensor:
    """float32 -> int64 in [-2^31, 2^31) with the same order; -0.0 is 0.0."""
    bits = (cost.float() + 0.0).contiguous().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def pack_key(cost: Tensor, index: Tensor) -> Tensor:
    """One int64 key ordered by (cost, index): ties go to the smaller index."""
    return (sortable(cost) << 32) | index


def key_index(key: Tensor) -> Tensor:
    """The index in a key of :func:`pack_key`."""
    return key & _LOW32


def has_float64(device: torch.device) -> bool:
    """Whether tensors of float64 can be made there: not on Apple's GPUs, and on some of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def count_k(iou: Tensor, k_scale: float = 1.0) -> Tensor:
    """dynamic_k = max(1, floor(k_scale * sum)), the sum and its product in float64.

    Where there is no float64, integers give the same: IoUs are summed in units of 2^-57, of which 32 IoUs
    take less than 63 bits. Both sums are exact for IoUs that are 0 or above 2^-25; what is smaller counts to
    2^-48 in float64 and to 2^-58 here.

    Args:
        iou: [..., q] float32, up to 32 IoUs of each gt; negative ones count as 0. float64 is summed as it is.
        k_scale: Factor of the sum.

    Returns:
        [...] int64.
    """
    iou = iou.clamp(min=0)
    if has_float64(iou.device):
        return (iou.sum(-1, dtype=torch.float64) * k_scale).floor().long().clamp(min=1)
    total = (iou * 2.0**FIXED_POINT).round().long().sum(-1)
    k = torch.ones_like(total)
    for threshold in _thresholds(k_scale, iou.shape[-1]):
        k += total >= threshold
    return k


@functools.cache
def _thresholds(k_scale: float, most: int) -> list[int]:
    """The least sums of up to ``most`` IoUs for which the product in float64 is 2, 3 ..., in units of
    2^-57.
    """
    found = []
    for k in range(2, int(most * k_scale) + 1):
        least = k / k_scale
        while least * k_scale >= k:
            least = math.nextafter(least, 0.0)
        while least * k_scale < k:
            least = math.nextafter(least, math.inf)
        found.append(int(least * 2.0**FIXED_POINT))
    return found


def dynamic_k_matching(
    cost: Tensor,
    iou: Tensor,
    *,
    gt_mask: Tensor | None = None,
    candidate_topk: int = 13,
    k_scale: float = 1.0,
    conflict: str = "all",
    min_positives: int = 0,
) -> Matching:
    """Dynamic-k matching of a cost matrix: YOLOX's rule, ``yolox/models/yolo_head.py`` dynamic_k_matching.

    The default of ``candidate_topk`` is RTMDet's, YOLOX has 10. For each gt, k = max(1, floor(k_scale * sum
    of its candidate_topk largest IoUs)) and the k priors of smallest cost; a prior taken by several gts goes
    to one of them. Ties: the smaller prior, then the smaller gt.

    Args:
        cost: [B, G, P], +inf where the gt may not take the prior. float64 is compared in float64.
        iou: [B, G, P], negative where the pair does not count for ``dynamic_k``.
        gt_mask: [B, G] bool, False for padded gts; their rows must hold +inf.
        candidate_topk: q, how many IoUs are summed, 1 to 32.
        k_scale: Factor of the sum before it is floored.
        conflict: ``"all"``: to the gt of smallest cost, of all gts; ``"matched"``: of those that selected the
            prior; ``"max_iou"``: to the gt of largest IoU.
        min_positives: Positives that every gt keeps where there are priors for it, see :func:`rescue`. Above
            0 the gts of an image are looked at one after the other.

    Returns:
        A :class:`Matching` with ``dynamic_k`` [B, G].

    Raises:
        TypeError: A matrix or the mask is no tensor.
        ValueError: Shapes, dtypes or devices do not fit, ``conflict`` is unknown, a number is out of range,
            or (looked at on CPU alone) ``cost`` or ``iou`` holds NaN.

    Example:
        >>> cost = torch.tensor([[[1.0, 2.0, 9.0], [1.5, 3.0, 4.0]]])
        >>> iou = torch.tensor([[[0.9, 0.8, 0.4], [0.6, 0.3, 0.1]]])
        >>> dynamic_k_matching(cost, iou).gt_index
        tensor([[ 0,  0, -1]])
    """
    _check_matrices(cost, iou, gt_mask, candidate_topk, k_scale, conflict, min_positives)
    batch, num_gts, num_priors = cost.shape
    device = cost.device
    if num_gts == 0 or num_priors == 0 or batch == 0:
        k = torch.ones((batch, num_gts), dtype=torch.int64, device=device)
        return Matching(
            gt_index=torch.full((batch, num_priors), -1, dtype=torch.int64, device=device),
            matched_iou=torch.zeros((batch, num_priors), dtype=torch.float32, device=device),
            dynamic_k=k if gt_mask is None else k * gt_mask,
            claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
        )

    # dynamic k
    top_iou = iou.topk(min(candidate_topk, num_priors), dim=2, sorted=False).values  # [B, G, q]
    dynamic_k = count_k(top_iou, k_scale)  # [B, G]
    if gt_mask is not None:
        dynamic_k = dynamic_k * gt_mask

    # the k cheapest priors of each gt
    width = min(max(1, int(candidate_topk * k_scale)), num_priors)
    rank = torch.arange(width, dtype=torch.int64, device=device)
    prior = cheapest(cost, width)  # [B, G, K]
    prior_cost = cost.gather(2, prior)
    taken = (rank < dynamic_k[..., None]) & (prior_cost < torch.inf)

    # one claim per selected pair; a pair that is not taken adds to its own prior what changes nothing there
    slot = prior.flatten(1)  # [B, G * K]
    claims = torch.zeros((batch, num_priors), dtype=torch.int32, device=device).scatter_add(
        1, slot, taken.flatten(1).int()
    )
    gt = torch.arange(num_gts, dtype=torch.int64, device=device)[:, None].expand_as(prior).flatten(1)
    claim_cost = torch.where(taken, prior_cost, torch.inf).flatten(1)
    least = torch.full((batch, num_priors), torch.inf, dtype=cost.dtype, device=device)
    least = least.scatter_reduce(1, slot, claim_cost, "amin")
    winner = taken.flatten(1) & (claim_cost == least.gather(1, slot))
    owner = torch.full((batch, num_priors), num_gts, dtype=torch.int64, device=device)
    # the cheapest of the gts that selected the prior
    owner = owner.scatter_reduce(1, slot, torch.where(winner, gt, num_gts), "amin")

    # conflicts
    if conflict == "all":
        owner = torch.where(claims > 1, cost.min(1).indices, owner)
    elif conflict == "max_iou":
        owner = torch.where(claims > 1, torch.where(cost < torch.inf, iou, -1.0).max(1).indices, owner)
    gt_index = torch.where(claims > 0, owner, -1)
    if min_positives:
        gt_index = rescue(cost, gt_index, min_positives)
    matched_iou = iou.gather(1, gt_index.clamp(min=0)[:, None]).squeeze(1)
    return Matching(
        gt_index=gt_index,
        matched_iou=torch.where(gt_index >= 0, matched_iou, 0.0).float(),
        dynamic_k=dynamic_k,
        claims=claims,
    )


def _check_matrices(
    cost: Tensor,
    iou: Tensor,
    gt_mask: Tensor | None,
    candidate_topk: int,
    k_scale: float,
    conflict: str,
    min_positives: int,
) -> None:
    """Refuse what :func:`dynamic_k_matching` says it does."""
    for name, matrix in (("cost", cost), ("iou", iou)):
        tensor(name, matrix)
        floating(name, matrix)
    if cost.ndim != 3 or cost.shape != iou.shape:
        remedy = "add the batch dimension with cost[None], iou[None]" if cost.ndim == 2 else ""
        fail("cost, iou", "two [B, G, P] of one shape", f"{shape_of(cost)} and {shape_of(iou)}", remedy)
    if gt_mask is not None:
        tensor("gt_mask", gt_mask)
        if gt_mask.shape != cost.shape[:2]:
            fail("gt_mask", f"[B, G] = {list(cost.shape[:2])}, as cost", shape_of(gt_mask), "")
        if gt_mask.dtype != torch.bool:
            fail("gt_mask", "torch.bool, True for real gts", str(gt_mask.dtype), "use gt_mask.bool()")
    for name, value in (("iou", iou), ("gt_mask", gt_mask)):
        if value is not None and value.device != cost.device:
            fail(name, f"device {cost.device}, as cost", str(value.device), f"use {name}.to(cost.device)")
    if not 1 <= candidate_topk <= MAX_TOPK:
        raise ValueError(f"candidate_topk: expected 1 to {MAX_TOPK}, got {candidate_topk}")
    if not 0 < k_scale < math.inf:
        raise ValueError(f"k_scale: expected a finite number above 0, got {k_scale}")
    if conflict not in ("all", "matched", "max_iou"):
        raise ValueError(f"conflict: expected one of 'all', 'matched', 'max_iou', got {conflict!r}")
    if min_positives < 0:
        raise ValueError(f"min_positives: expected 0 or more, got {min_positives}")
    if cost.device.type == "cpu" and bool(cost.isnan().any()):
        raise ValueError("cost: expected numbers or +inf, got NaN; put +inf where a gt may not take a prior")
    if iou.device.type == "cpu" and bool(iou.isnan().any()):
        raise ValueError("iou: expected numbers, got NaN; put -1 where a pair does not count for dynamic_k")


def match(
    cost: Tensor,
    iou: Tensor,
    config: SimOTAConfig,
    gt_mask: Tensor | None = None,
    *,
    min_positives: int | None = None,
) -> Matching:
    """:func:`dynamic_k_matching` with the parameters of a configuration, but for ``min_positives`` where that
    is given.
    """
    return dynamic_k_matching(
        cost, iou, gt_mask=gt_mask, candidate_topk=config.candidate_topk, k_scale=config.k_scale,
        conflict=config.conflict,
        min_positives=config.min_positives if min_positives is None else min_positives,
    )  # fmt: skip


def rescue(cost: Tensor, gt_index: Tensor, min_positives: int) -> Tensor:
    """``gt_index`` after gts that are short of positives have taken priors.

    The gts of an image have their turns in the order of their index. While one has fewer than
    ``min_positives`` priors, it takes the cheapest (of equals the lowest) of those that it may take and that
    can be spared: background, and priors of gts with more than ``min_positives`` at that moment. Where there
    is none, the gt keeps what it has. So nobody falls short for another's sake, and no prior moves twice.

    Args:
        cost: [B, G, P], +inf where the gt may not take the prior.
        gt_index: [B, P] int64, -1 for background, once conflicts are resolved.
        min_positives: Positives that every gt should have.

    Returns:
        [B, P] int64.
    """
    gts = torch.arange(cost.shape[1], dtype=torch.int64, device=cost.device)
    count = (gt_index[:, None] == gts[:, None]).sum(2)  # [B, G]
    for gt in range(cost.shape[1]):
        for _ in range(min_positives):
            spared = (gt_index < 0) | (count > min_positives).gather(1, gt_index.clamp(min=0))  # [B, P]
            least, prior = torch.where(spared, cost[:, gt], torch.inf).min(1, keepdim=True)  # [B, 1]
            takes = (count[:, gt, None] < min_positives) & (least < torch.inf)
            owner = gt_index.gather(1, prior)
            count = count.scatter_add(1, owner.clamp(min=0), -(takes & (owner >= 0)).long())
            count.select(1, gt).add_(takes.squeeze(1))
            gt_index = gt_index.scatter(1, prior, torch.where(takes, gt, owner))
    return gt_index


def cheapest(cost: Tensor, width: int) -> Tensor:
    """Priors of the smallest costs, [B, G, P] -> [B, G, width] in ascending (cost, prior) order.

    torch.topk leaves ties open, so float32 costs are ranked by packed keys; float64 costs by a stable sort.
    """
    if cost.dtype == torch.float64:
        return cost.sort(dim=2, stable=True).indices[..., :width]
    key = pack_key(cost, torch.arange(cost.shape[2], dtype=torch.int64, device=cost.device))
    return key_index(key.topk(width, dim=2, largest=False, sorted=True).values)
