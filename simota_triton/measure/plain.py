"""What the backends are compared with: RTMDet's assignment in plain PyTorch, written as fast as we can."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Solver = Callable[..., Tensor]

TOPK, IOU_WEIGHT, EPS, RADIUS = 13, 3.0, 1e-7, 3.0


def dense_cost(
    boxes: Tensor, logits: Tensor, priors: Tensor, gt_boxes: Tensor, gt_labels: Tensor, background: Tensor
) -> tuple[Tensor, Tensor]:
    """Cost and IoU of all pairs, [..., G, n], without a loop.

    The class term of a pair is a sum over all classes in which only the gt's own class differs from the sum
    for the background, so it is

        background - background term of the own class + term of the own class.

    Args:
        boxes: [..., n, 4] predictions, xyxy.
        logits: [..., n, C].
        priors: [n, 4] x, y, stride, stride.
        gt_boxes: [..., G, 4] xyxy.
        gt_labels: [..., G].
        background: [..., n] of :func:`background_cost`.
    """
    x1, y1, x2, y2 = boxes.unsqueeze(-3).unbind(-1)
    gx1, gy1, gx2, gy2 = gt_boxes.unsqueeze(-2).unbind(-1)
    inter = (torch.minimum(x2, gx2) - torch.maximum(x1, gx1)).clamp_(min=0) * (
        torch.minimum(y2, gy2) - torch.maximum(y1, gy1)
    ).clamp_(min=0)
    iou = inter / ((x2 - x1) * (y2 - y1) + (gx2 - gx1) * (gy2 - gy1) - inter).clamp_(min=1e-6)
    z = logits.transpose(-1, -2).gather(-2, gt_labels.unsqueeze(-1).expand(iou.shape))
    p, softplus = z.sigmoid(), F.softplus(z)
    cls = background.unsqueeze(-2) - softplus * p.square() + (softplus - z * iou) * (iou - p).square()
    dx, dy = priors[..., 0] - (gx1 + gx2) * 0.5, priors[..., 1] - (gy1 + gy2) * 0.5
    distance = (dx * dx + dy * dy).sqrt_() / priors[..., 2]
    return cls - torch.log(iou + EPS) * IOU_WEIGHT + torch.pow(10.0, distance - RADIUS), iou


def background_cost(logits: Tensor) -> Tensor:
    """The class term against the background, [..., n]: the soft BCE against target 0, summed over classes."""
    return (F.softplus(logits) * logits.sigmoid().square_()).sum(-1)


def match(cost: Tensor, iou: Tensor) -> Tensor:
    """gt_index [..., n] from cost and IoU [..., G, n]: dynamic k, selection, conflicts; no loop over gts."""
    width = min(TOPK, cost.shape[-1])
    dynamic_k = iou.topk(width, dim=-1, sorted=False).values.clamp(min=0).sum(-1).int().clamp_(min=1)
    values, indices = cost.topk(width, dim=-1, largest=False)
    taken = (
        torch.arange(width, dtype=torch.int64, device=cost.device) < dynamic_k.unsqueeze(-1)
    ) & values.isfinite()
    matching = torch.zeros_like(cost, dtype=torch.bool).scatter_(-1, indices, taken)
    claims = matching.sum(-2)
    owner = torch.where(claims > 1, cost.min(-2).indices, matching.int().argmax(-2))
    return torch.where(claims > 0, owner, -1)


def solve(boxes: Tensor, logits: Tensor, priors: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """gt_index [n] of the n candidates of one image."""
    return match(*dense_cost(boxes, logits, priors, gt_boxes, gt_labels, background_cost(logits)))


def vectorised_image(
    pred_boxes: Tensor,
    cls_logits: Tensor,
    priors: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    solve: Solver = solve,
) -> Tensor:
    """gt_index [P] of one image. Only the candidates, the priors inside of some gt, are computed."""
    out = torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
    x, y = priors[:, 0], priors[:, 1]
    gx1, gy1, gx2, gy2 = gt_boxes[:, None].unbind(-1)
    valid = ((x > gx1) & (x < gx2) & (y > gy1) & (y < gy2)).any(0).nonzero().squeeze(1)
    if len(valid):
        out[valid] = solve(pred_boxes[valid], cls_logits[valid], priors[valid], gt_boxes, gt_labels)
    return out


def vectorised_batch(
    pred_boxes: Tensor,
    cls_logits: Tensor,
    priors: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
) -> Tensor:
    """gt_index [B, P] of a padded batch at once, without shapes that depend on data."""
    x, y = priors[:, 0], priors[:, 1]
    gx1, gy1, gx2, gy2 = gt_boxes[:, :, None].unbind(-1)
    candidate = ((x > gx1) & (x < gx2) & (y > gy1) & (y < gy2) & gt_mask[..., None]).any(1)  # [B, P]
    cost, iou = dense_cost(pred_boxes, cls_logits, priors, gt_boxes, gt_labels, background_cost(cls_logits))
    selectable = candidate[:, None] & gt_mask[..., None]
    return match(torch.where(selectable, cost, torch.inf), torch.where(selectable, iou, -1.0))
