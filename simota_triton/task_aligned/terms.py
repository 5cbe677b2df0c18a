"""The terms of the task-aligned metric, one function each, on broadcast tensors of any shape.

What decides an assignment in torch goes through here: the dense definition calls these on [B, G, P], backend
"torch" on lists of pairs, and the device kernels are tested against them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..boxes import SMALLEST, box_ciou, box_iou
from ..config import TaskAlignedConfig
from ..rotated import box_probiou, in_frame
from ..terms import depth


def region_boxes(gt_boxes: Tensor, config: TaskAlignedConfig) -> Tensor:
    """Boxes whose priors a gt may select, in the format of the gts': theirs, with short sides enlarged."""
    if not config.min_side_below:
        return gt_boxes
    if config.boxes == "rotated":
        sides = gt_boxes[..., 2:4]
        sides = torch.where(sides < config.min_side_below, config.min_side_to, sides)
        return torch.cat([gt_boxes[..., :2], sides, gt_boxes[..., 4:]], -1)
    low, high = gt_boxes[..., :2], gt_boxes[..., 2:]
    center = (low + high) / 2
    short = high - low < config.min_side_below
    reach = config.min_side_to / 2
    return torch.cat([torch.where(short, center - reach, low), torch.where(short, center + reach, high)], -1)


def in_region(priors: Tensor, boxes: Tensor, config: TaskAlignedConfig) -> Tensor:
    """Whether a prior lies in the region of a gt, decided in float32.

    Args:
        priors: [..., 4] x, y, stride_x, stride_y, float32.
        boxes: [..., 4] xyxy, or [..., 5] rotated, float32, of :func:`region_boxes`.
        config: The configuration.

    Returns:
        [...] bool.
    """
    if config.boxes == "rotated":
        x, y = in_frame(priors, boxes)
        x2, y2 = boxes[..., 2] / 2, boxes[..., 3] / 2
        x1, y1 = -x2, -y2
    else:
        x, y = priors[..., 0], priors[..., 1]
        x1, y1, x2, y2 = boxes.unbind(-1)
    deep = torch.minimum(depth(x, x1, x2), depth(y, y1, y2))
    inside = deep >= config.margin if config.inclusive else deep > config.margin
    if config.max_reach is not None:
        far_x = torch.maximum(x - x1, x2 - x) / priors[..., 2]
        far_y = torch.maximum(y - y1, y2 - y) / priors[..., 3]
        inside = inside & (torch.maximum(far_x, far_y) <= config.max_reach)
    return inside


def pair_overlap(pred_boxes: Tensor, gt_boxes: Tensor, config: TaskAlignedConfig) -> Tensor:
    """Overlap of a prediction and a gt in [0, 1], in the format of the configuration."""
    if config.overlap == "iou":
        return box_iou(pred_boxes, gt_boxes, rule=config.union_rule, eps=config.union_eps)
    of_boxes = box_probiou if config.overlap == "probiou" else box_ciou
    overlap = of_boxes(gt_boxes, pred_boxes, eps=config.union_eps)
    return torch.where(overlap > 0, overlap, 0.0)


def class_scores(cls_logits: Tensor, config: TaskAlignedConfig) -> Tensor:
    """The probability of a class, float32, at most 1; 0 below the normal numbers, where devices differ."""
    given = cls_logits.float()
    scores = sigmoid(given) if config.score == "sigmoid" else given.clamp(max=1.0)
    return torch.where(scores >= SMALLEST, scores, 0.0)


def sigmoid(logits: Tensor) -> Tensor:
    """1 / (1 + exp(-logits)).

    Written out, because on a CPU ``torch.sigmoid`` rounds the last elements of a tensor in another way than
    those before them: equal logits would have different scores.
    """
    return logits.neg().exp_().add_(1).reciprocal_()


def metric(scores: Tensor, overlap: Tensor, config: TaskAlignedConfig) -> Tensor:
    """Scores ** alpha * overlap ** beta, [...] and [...] -> [...]; 0 below the normal numbers of float32,
    where devices differ.
    """
    found = power(scores, config.alpha) * power(overlap, config.beta)
    return torch.where(found >= SMALLEST, found, 0.0)


def power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent``; where the exponent is whole, by products alone, which take a fraction of the time
    of ``torch.pow`` and do not depend on where in a tensor an element lies, as :func:`sigmoid` tells.
    """
    if exponent != int(exponent) or not exponent:
        return base.pow(exponent)  # of 0.5, the square root
    found, square, left = None, base, int(exponent)
    while left > 1:
        if left % 2:
            found = square if found is None else found * square
        square, left = square * square, left // 2
    return square if found is None else found * square


def target(metric: Tensor, largest_metric: Tensor, largest_overlap: Tensor, norm_eps: float) -> Tensor:
    """What the class score of a positive prior should be: its metric, normalised so that the best prior of
    its gt is scored at the gt's largest overlap. [...] each.
    """
    share = metric / (largest_metric + norm_eps).clamp(min=SMALLEST)
    return share * largest_overlap
