"""What the assigners of the task-aligned family share: probabilities, padded gts, and targets that are dense.

Ultralytics, mmyolo, super-gradients and libreyolo hold them in different classes, whose ``forward`` takes the
same tensors in another order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .assigners import assigner_for


class DenseTargets(NamedTuple):
    """What priors learn, as the originals hand it out.

    Attributes:
        labels: [B, P] int64; of background the label of the image's first gt.
        boxes: [B, P, 4] in the dtype of the gts; of background the box of the image's first gt.
        scores: [B, P, C] of the wider of the predictions' dtypes; 0 for background.
        fg_mask: [B, P] bool.
        gt_index: [B, P] int64; 0 for background.
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor
    fg_mask: Tensor
    gt_index: Tensor


@torch.no_grad()
def dense_targets(
    preset: str,
    overrides: dict[str, Any],
    scores: Tensor,
    boxes: Tensor,
    priors: Tensor,
    gt_labels: Tensor,
    gt_boxes: Tensor,
    gt_mask: Tensor | None = None,
) -> DenseTargets:
    """Assign a batch of padded gts.

    Args:
        preset: Name of our preset.
        overrides: What changes in it.
        scores: [B, P, C] probabilities, or logits with ``score="sigmoid"`` among the overrides.
        boxes: [B, P, 4] predictions, xyxy.
        priors: [P, 2] points or [P, 4] points and strides, in pixels.
        gt_labels: [B, G], of any dtype.
        gt_boxes: [B, G, 4] xyxy.
        gt_mask: [B, G], 0 for padding; None: all are real.
    """
    gt_labels = gt_labels.long()
    if gt_mask is not None:
        gt_mask = gt_mask > 0
        gt_labels = torch.where(gt_mask, gt_labels, gt_labels.clamp(min=0))
    result = assigner_for(preset, **{"score": "prob", **overrides})(
        boxes, scores, priors, gt_boxes, gt_labels, gt_mask=gt_mask
    )
    dense = result.target_scores().to(torch.promote_types(scores.dtype, boxes.dtype))
    gt_index = result.gt_index.clamp(min=0)
    if not gt_boxes.shape[1]:
        nothing = gt_boxes.new_zeros(boxes.shape)
        return DenseTargets(result.labels, nothing, dense, result.fg_mask, gt_index)
    return DenseTargets(
        labels=gt_labels.gather(1, gt_index),
        boxes=gt_boxes.gather(1, gt_index[..., None].expand(-1, -1, gt_boxes.shape[2])),
        scores=dense,
        fg_mask=result.fg_mask,
        gt_index=gt_index,
    )


def ppyoloe_forward(
    self: Any,
    pred_scores: Tensor,
    pred_bboxes: Tensor,
    anchor_points: Tensor,
    num_anchors_list: Any,
    gt_labels: Tensor,
    gt_bboxes: Tensor,
    pad_gt_mask: Tensor | None,
    bg_index: int,
    gt_scores: Any = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``TaskAlignedAssigner.forward`` of PP-YOLOE and YOLO-NAS in super-gradients and libreyolo.

    Args:
        self: Holds ``topk``, ``alpha``, ``beta`` and ``eps``.
        pred_scores: [B, P, C] probabilities.
        pred_bboxes: [B, P, 4] xyxy.
        anchor_points: [P, 2] in pixels.
        num_anchors_list: Not read.
        gt_labels: [B, G, 1].
        gt_bboxes: [B, G, 4] xyxy.
        pad_gt_mask: [B, G, 1], 0 for padding; None: all are real.
        bg_index: C, the label of background.
        gt_scores: Not read.

    Returns:
        Labels [B, P], boxes [B, P, 4] and scores [B, P, C].

    Raises:
        ValueError: ``bg_index`` is not C.
    """
    if bg_index != pred_scores.shape[2]:
        raise ValueError(
            f"bg_index: expected {pred_scores.shape[2]}, the number of classes, got {bg_index}; undo the "
            "patch with unpatch() of simota_triton's integration"
        )
    overrides = {
        "topk": self.topk,
        "alpha": float(self.alpha),
        "beta": float(self.beta),
        "norm_eps": float(self.eps),
    }
    mask = None if pad_gt_mask is None else pad_gt_mask[..., 0]
    found = dense_targets(
        "ppyoloe", overrides, pred_scores, pred_bboxes, anchor_points, gt_labels[..., 0], gt_bboxes, mask
    )
    return torch.where(found.fg_mask, found.labels, bg_index), found.boxes, found.scores
