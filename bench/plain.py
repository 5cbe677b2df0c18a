"""What our backends are compared with: RTMDet's assignment in plain PyTorch, as fast as we can write it, and
as mmdet writes it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simota_triton.measure.plain import (
    EPS,
    IOU_WEIGHT,
    RADIUS,
    TOPK,
    Solver,
    solve,
    vectorised_batch,
    vectorised_image,
)
from simota_triton.measure.workloads import Batch

__all__ = ["by_image", "loop_image", "solve", "vectorised_batch", "vectorised_image"]


def loop_image(
    pred_boxes: Tensor, cls_logits: Tensor, priors: Tensor, gt_boxes: Tensor, gt_labels: Tensor
) -> Tensor:
    """gt_index [P] of one image, computed as mmdet's DynamicSoftLabelAssigner does: with class costs [n, G,
    C] and a Python loop over gts.
    """
    out = torch.full((len(priors),), -1, device=priors.device)
    inside = (
        (priors[:, None, :2] > gt_boxes[None, :, :2]) & (priors[:, None, :2] < gt_boxes[None, :, 2:])
    ).all(2)
    valid = inside.any(1)
    boxes, logits, points = pred_boxes[valid], cls_logits[valid], priors[valid]
    if not len(boxes):
        return out
    size = (
        torch.minimum(boxes[:, None, 2:], gt_boxes[:, 2:])
        - torch.maximum(boxes[:, None, :2], gt_boxes[:, :2])
    ).clamp(min=0)
    inter = size.prod(2)
    area, gt_area = (boxes[:, 2:] - boxes[:, :2]).prod(1), (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(1)
    iou = inter / (area[:, None] + gt_area - inter).clamp(min=1e-6)  # [n, G]
    centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    distance = (points[:, None, :2] - centers).square().sum(2).sqrt() / points[:, 2:3]  # [n, G]
    target = F.one_hot(gt_labels, logits.shape[1]).float()[None] * iou[..., None]  # [n, G, C]
    logits = logits[:, None].repeat(1, len(gt_boxes), 1)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cls = (bce * (target - logits.sigmoid()).abs().square()).sum(2)  # [n, G]
    cost = cls - torch.log(iou + EPS) * IOU_WEIGHT + torch.pow(10, distance - RADIUS)
    matching = torch.zeros_like(cost, dtype=torch.uint8)
    dynamic_k = iou.topk(min(TOPK, len(boxes)), dim=0).values.sum(0).int().clamp(min=1)
    for g in range(len(gt_boxes)):
        matching[cost[:, g].topk(int(dynamic_k[g]), largest=False).indices, g] = 1
    multiple = matching.sum(1) > 1
    if multiple.sum():
        winner = cost[multiple].min(1).indices
        matching[multiple] = 0
        matching[multiple, winner] = 1
    out[valid] = torch.where(matching.sum(1) > 0, matching.argmax(1), -1)
    return out


def by_image(function: Solver, batch: Batch) -> Tensor:
    """gt_index [B, P] of a batch, by a function that computes one image."""
    images = zip(batch.pred_boxes, batch.cls_logits, batch.gt_boxes, batch.gt_labels, strict=True)
    return torch.stack(
        [function(boxes, logits, batch.priors, gts, labels) for boxes, logits, gts, labels in images]
    )
