"""From metrics and overlaps to an assignment: the topk priors of each gt, conflicts, and the targets of
classification.

Plain torch on dense [B, G, P] matrices, without a host sync and without a loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import fail, floating, shape_of, tensor
from ..config import TaskAlignedConfig
from ..matching import Matching, cheapest
from .terms import target


def topk_matching(
    metric: Tensor,
    overlap: Tensor,
    inside: Tensor | None = None,
    *,
    gt_mask: Tensor | None = None,
    topk: int = 10,
    topk2: int | None = None,
    pool: str = "inside",
    at_least_one: bool = False,
    conflict: str = "inside",
    norm_eps: float = 1e-9,
) -> Matching:
    """Task-aligned matching of a metric matrix: the rule of TOOD (Feng et al., ICCV 2021) with the fields of
    :class:`TaskAlignedConfig`, whose docstring says what they mean. The defaults are those of preset ``tal``,
    Ultralytics' ``utils/tal.py``.

    Each gt selects its ``topk`` priors of the largest metric, where that is above 0; a prior that several gts
    selected goes to the one of the largest overlap. Ties: the smaller prior, then the smaller gt.

    Args:
        metric: [B, G, P], 0 or more; 0 where the gt may not take the prior.
        overlap: [B, G, P]; negative where the gt may not take the prior, whoever selected it.
        inside: [B, G, P] bool, whether the prior lies in the gt's region; None: all do.
        gt_mask: [B, G] bool, False for padded gts.
        topk: Priors that a gt selects, 1 to 32.
        topk2: Priors that it keeps after conflicts; None: all.
        pool: ``"inside"`` or ``"all"``.
        at_least_one: A gt that selects nothing selects its largest metric.
        conflict: ``"inside"``, ``"all"`` or ``"matched"``.
        norm_eps: Added to the largest metric of a gt.

    Returns:
        A :class:`Matching` with ``dynamic_k`` [B, G], which is ``topk`` for every gt and 0 for padding, and
        ``scores`` [B, P].

    Raises:
        TypeError: A matrix or a mask is no tensor, or a number no number.
        ValueError: Shapes, dtypes or devices do not fit, a name is unknown, a number is out of range, or
            (looked at on CPU alone) ``metric`` or ``overlap`` holds NaN.

    Example:
        >>> metric = torch.tensor([[[0.5, 0.25, 0.0], [0.4, 0.3, 0.2]]])
        >>> overlap = torch.tensor([[[0.9, 0.8, 0.0], [0.8, 0.9, 0.7]]])
        >>> found = topk_matching(metric, overlap, topk=2)
        >>> found.gt_index, found.scores
        (tensor([[ 0,  1, -1]]), tensor([[0.9000, 0.9000, 0.0000]]))
    """
    TaskAlignedConfig(
        topk=topk, topk2=topk2, pool=pool, at_least_one=at_least_one, conflict=conflict, norm_eps=norm_eps
    )  # which refuses what is out of range
    _check(metric, overlap, inside, gt_mask)
    batch, num_gts, num_priors = metric.shape
    device = metric.device
    asked = torch.full((batch, num_gts), topk, dtype=torch.int64, device=device)
    if gt_mask is not None:
        asked = asked * gt_mask
        metric = torch.where(gt_mask[..., None], metric, 0.0)
        overlap = torch.where(gt_mask[..., None], overlap, -1.0)
    if 0 in metric.shape:
        nothing = torch.zeros((batch, num_priors), dtype=torch.float32, device=device)
        return Matching(
            gt_index=torch.full((batch, num_priors), -1, dtype=torch.int64, device=device),
            matched_iou=nothing,
            dynamic_k=asked,
            claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
            scores=nothing.clone(),
        )
    if inside is None:
        inside = torch.ones((), dtype=torch.bool, device=device).expand(metric.shape)

    selected = _selected(metric, inside, topk, pool, at_least_one)  # [B, G, P]
    claims = selected.sum(1, dtype=torch.int32)  # [B, P]

    # conflicts
    rivals = {"matched": selected, "inside": inside | selected, "all": overlap >= 0}[conflict]
    largest = torch.where(rivals, overlap, -1.0).max(1).indices  # [B, P]
    owner = torch.where(claims > 1, largest, selected.byte().argmax(1))
    gt_index = torch.where(claims > 0, owner, -1)
    gts = torch.arange(num_gts, dtype=torch.int64, device=device)[:, None]
    owned = gt_index[:, None] == gts  # [B, G, P]
    if topk2 is not None:
        owned = owned & _largest(torch.where(owned, metric, -1.0), topk2)
        gt_index = torch.where(owned.any(1), gt_index, -1)

    # targets
    largest_metric, largest_overlap = (
        torch.where(owned, value, 0.0).amax(2) for value in (metric, overlap)
    )  # [B, G]
    row = gt_index.clamp(min=0)  # [B, P]
    metric, overlap = (value.gather(1, row[:, None]).squeeze(1) for value in (metric, overlap))
    scores = target(metric, largest_metric.gather(1, row), largest_overlap.gather(1, row), norm_eps)
    return Matching(
        gt_index=gt_index,
        matched_iou=torch.where(gt_index >= 0, overlap, 0.0).float(),
        dynamic_k=asked,
        claims=claims,
        scores=torch.where(gt_index >= 0, scores, 0.0).float(),
    )


def _selected(metric: Tensor, inside: Tensor, topk: int, pool: str, at_least_one: bool) -> Tensor:
    """The pairs [B, G, P] that gts select: the topk of each that are inside and above 0."""
    pooled = metric if pool == "all" else torch.where(inside, metric, 0.0)
    selected = _largest(pooled, topk) & inside & (metric > 0)
    if at_least_one:
        lonely = selected.any(2, keepdim=True).logical_not()
        selected = selected | (lonely & _largest(metric, 1) & (metric > 0))
    return selected


def _largest(values: Tensor, count: int) -> Tensor:
    """Whether a value is among the largest of its gt and not below 0, [B, G, P]; of equals the lowest
    priors.
    """
    prior = cheapest(-values, min(count, values.shape[2]))  # [B, G, count]
    return torch.zeros_like(values, dtype=torch.bool).scatter(2, prior, values.gather(2, prior) >= 0)


def match(
    metric: Tensor,
    overlap: Tensor,
    inside: Tensor | None,
    config: TaskAlignedConfig,
    gt_mask: Tensor | None = None,
) -> Matching:
    """:func:`topk_matching` with the parameters of a configuration."""
    return topk_matching(
        metric, overlap, inside, gt_mask=gt_mask, topk=config.topk, topk2=config.topk2, pool=config.pool,
        at_least_one=config.at_least_one, conflict=config.conflict, norm_eps=config.norm_eps,
    )  # fmt: skip


def _check(metric: Tensor, overlap: Tensor, inside: Tensor | None, gt_mask: Tensor | None) -> None:
    """Refuse matrices and masks that :func:`topk_matching` cannot take."""
    for name, matrix in (("metric", metric), ("overlap", overlap)):
        tensor(name, matrix)
        floating(name, matrix)
    if metric.ndim != 3 or metric.shape != overlap.shape:
        remedy = "add the batch dimension with metric[None], overlap[None]" if metric.ndim == 2 else ""
        got = f"{shape_of(metric)} and {shape_of(overlap)}"
        fail("metric, overlap", "two [B, G, P] of one shape", got, remedy)
    for name, mask, shape, letters in (
        ("inside", inside, metric.shape, "[B, G, P]"),
        ("gt_mask", gt_mask, metric.shape[:2], "[B, G]"),
    ):
        if mask is None:
            continue
        tensor(name, mask)
        if mask.shape != shape:
            fail(name, f"{letters} = {list(shape)}, as metric", shape_of(mask), "")
        if mask.dtype != torch.bool:
            fail(name, "torch.bool", str(mask.dtype), f"use {name}.bool()")
    for name, value in (("overlap", overlap), ("inside", inside), ("gt_mask", gt_mask)):
        if value is not None and value.device != metric.device:
            fail(
                name, f"device {metric.device}, as metric", str(value.device), f"use {name}.to(metric.device)"
            )
    for name, matrix in (("metric", metric), ("overlap", overlap)):
        if matrix.device.type == "cpu" and bool(matrix.isnan().any()):
            nothing = "0" if name == "metric" else "-1"
            fail(name, "numbers", "NaN", f"put {nothing} where a gt may not take a prior")
