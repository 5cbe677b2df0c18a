"""The terms of the cost, one function each, on broadcast tensors of any shape.

What decides an assignment in torch goes through here: the dense definition calls these on [B, G, P], backend
"torch" on lists of pairs, and the device kernels are tested against them. (Backend "torch" forms bounds,
which decide nothing, by cheaper formulas of its own.)

The class term is never formed over [P, G, C]. Each prior has the sum of its classes' costs as background
(target 0); a pair swaps the gt's class from target 0 to its own target::

    cls(g, p) = max(0, background(p) - background_of_class(label_g, p) + own(g, p))

The maximum repairs what rounding of the difference may leave below zero: every summand is non-negative.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import box_giou, box_iou, guard
from .config import SimOTAConfig

COST_LIMIT = 3.0e38
"""Costs are clamped here, so that +inf always means "no candidate" (the centre prior overflows past 41
strides).
"""

FLOAT32_MAX = torch.finfo(torch.float32).max

LOG_LIMIT = -100.0
"""Lower clamp of the logarithms of probabilities, as in ``torch.nn.functional.binary_cross_entropy``."""

VFL_ALPHA = 0.75
"""Weight of negatives in the varifocal loss (Zhang et al., CVPR 2021); its gamma is 2."""


def depth(position: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far a coordinate lies inside an interval; positive strictly inside."""
    return torch.minimum(position - low, high - position)


def region_depths(
    position: Tensor,
    stride: Tensor,
    low: Tensor,
    high: Tensor,
    center: Tensor,
    region: str,
    center_radius: float,
) -> list[Tensor]:
    """A region along one axis: it is the union of boxes, and this is the depth in each of them (one or two).

    Regions are decided in float32 by the comparisons of YOLOX and mmdet, strict, whatever the dtype of the
    costs.
    """
    reach = center_radius * stride
    in_box = None if region == "center" else depth(position, low, high)
    in_center = None if region == "box" else depth(position, center - reach, center + reach)
    if in_box is not None and in_center is not None and region == "box_and_center":
        return [torch.minimum(in_box, in_center)]
    return [part for part in (in_box, in_center) if part is not None]


def in_region(
    priors: Tensor, gt_boxes: Tensor, gt_centers: Tensor, region: str, center_radius: float
) -> Tensor:
    """Whether a prior lies in a region of a gt.

    Args:
        priors: [..., 4] x, y, stride_x, stride_y, float32.
        gt_boxes: [..., 4] xyxy, float32.
        gt_centers: [..., 2] x, y, float32.
        region: One of ``config.REGIONS``.
        center_radius: Half-width of the centre square in strides.

    Returns:
        [...] bool.
    """
    if region == "all":
        shape = torch.broadcast_shapes(priors.shape[:-1], gt_boxes.shape[:-1])
        return torch.ones((), dtype=torch.bool, device=priors.device).expand(shape)
    along_x, along_y = (
        region_depths(
            priors[..., i],
            priors[..., 2 + i],
            gt_boxes[..., i],
            gt_boxes[..., 2 + i],
            gt_centers[..., i],
            region,
            center_radius,
        )
        for i in (0, 1)
    )
    inside = [torch.minimum(x, y) for x, y in zip(along_x, along_y, strict=True)]
    return (inside[0] if len(inside) == 1 else torch.maximum(*inside)) > 0


def pair_iou(pred_boxes: Tensor, gt_boxes: Tensor, config: SimOTAConfig) -> Tensor:
    """IoU of a prediction and a gt, [..., 4] and [..., 4] -> [...]."""
    return box_iou(pred_boxes, gt_boxes, rule=config.union_rule, eps=config.union_eps)


def shared_part(inter: Tensor, areas: Tensor, config: SimOTAConfig) -> Tensor:
    """IoU [...] of an intersection and the sum of both areas; both are overwritten."""
    return inter.div_(guard(areas.sub_(inter), config.union_rule, config.union_eps))


def iou_cost(pred_boxes: Tensor, gt_boxes: Tensor, iou: Tensor, config: SimOTAConfig) -> Tensor:
    """-log(iou + log_eps), or 1 - GIoU, without its weight."""
    if config.iou_cost == "log":
        return -torch.log(iou + config.log_eps)
    return 1 - box_giou(pred_boxes, gt_boxes, rule=config.union_rule, eps=config.union_eps)


def center_cost(priors: Tensor, gt_centers: Tensor, config: SimOTAConfig) -> Tensor:
    """center_base ** (distance / stride - center_offset), without its weight (mmdet's soft centre prior).

    +inf where float32 overflows, whatever the dtype, and whatever the weight makes of it: as in the
    originals, all pairs that far apart cost the same.
    """
    prior = torch.pow(config.center_base, center_distance(priors, gt_centers) - config.center_offset)
    return prior if prior.dtype == torch.float32 else prior.masked_fill(prior > FLOAT32_MAX, torch.inf)


def center_distance(priors: Tensor, gt_centers: Tensor) -> Tensor:
    """Distance in strides between priors [..., 3 or 4] and centres [..., 2], [...]."""
    offset = priors[..., :2] - gt_centers
    return (offset[..., 0].square() + offset[..., 1].square()).sqrt() / priors[..., 2]


def class_scores(cls_logits: Tensor, obj_logits: Tensor | None, config: SimOTAConfig) -> Tensor:
    """What the class term reads: the logit itself, or a float32 probability (originals hold probabilities in
    float32).
    """
    if config.score == "joint":
        assert obj_logits is not None
        return (cls_logits.float().sigmoid() * obj_logits.float().sigmoid()).sqrt()
    return cls_logits.float().sigmoid() if config.score == "sigmoid" else cls_logits.float()


def class_cost(scores: Tensor, iou: Tensor, config: SimOTAConfig) -> Tensor:
    """Cost of the gt's class: target 1 for ``"bce"``, the IoU otherwise.

    Args:
        scores: [...] logit or probability of the gt's class, see :func:`class_scores`.
        iou: [...] IoU of the pair.
        config: The configuration.
    """
    target = torch.ones_like(iou) if config.cls_cost == "bce" else iou
    if config.score == "logit":
        probability = scores.sigmoid()
        bce = _softplus(scores) - scores * target
    else:
        probability = scores
        log_p, log_not_p = _logs(scores, config)
        bce = -(target * log_p + (1 - target) * log_not_p)
    if config.cls_cost == "soft_bce":
        return bce * (target - probability).square()
    if config.cls_cost == "vfl":
        return bce * torch.where(target > 0, target, VFL_ALPHA * probability.square())
    return bce


def background_cost(scores: Tensor, config: SimOTAConfig) -> Tensor:
    """Cost of a class that is not the gt's: :func:`class_cost` with target 0.

    Args:
        scores: [...] logit or probability, see :func:`class_scores`.
        config: The configuration.
    """
    if config.score == "logit":
        probability, bce = scores.sigmoid(), _softplus(scores)
    else:
        probability, bce = scores, -_logs(scores, config)[1]
    if config.cls_cost == "bce":
        return bce
    return bce * probability.square() * (VFL_ALPHA if config.cls_cost == "vfl" else 1.0)


def swap_class(background_sum: Tensor, background: Tensor, own: Tensor) -> Tensor:
    """The class term of a pair: its prior's sum over classes with the gt's class moved from target 0 to its
    own.
    """
    return (background_sum - background + own).clamp(min=0)


def _softplus(scores: Tensor) -> Tensor:
    """log(1 + exp(x)); x itself above 40, where float64 cannot tell them apart (PyTorch's own choice, 20, is
    float32's).
    """
    return F.softplus(scores, threshold=40.0)


def _logs(scores: Tensor, config: SimOTAConfig) -> tuple[Tensor, Tensor]:
    """log(p) and log(1 - p), clamped."""
    p = scores.float().clamp(config.prob_clamp, 1 - config.prob_clamp).to(scores.dtype)
    return p.log().clamp(min=LOG_LIMIT), torch.log1p(-p).clamp(min=LOG_LIMIT)


def pair_cost(
    cls: Tensor, iou_term: Tensor, center_term: Tensor | None, outside: Tensor | None, config: SimOTAConfig
) -> Tensor:
    """The sum ((cls * w + iou * w) + centre * w) + penalty in this order, clamped to ``COST_LIMIT``.

    The penalised sum is rounded to float32 whatever the dtype: its grid is part of the originals' rule.

    Args:
        cls: [...] class term, without weight.
        iou_term: [...] IoU cost, without weight.
        center_term: [...] centre prior, without weight, or None.
        outside: [...] bool, pairs that pay the penalty, or None.
        config: The configuration.
    """
    cost = cls * config.cls_weight + iou_term * config.iou_weight
    if center_term is not None:
        cost = cost + center_term * config.center_weight
    if outside is not None:
        cost = torch.where(outside, (cost + config.penalty).float().to(cost.dtype), cost)
    return cost.clamp(max=COST_LIMIT)


def add_extra(cost: Tensor, iou: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices of a call with an extra cost, which is added last; a pair whose extra cost is not finite takes
    no part.

    Args:
        cost: [B, G, P], +inf where the gt may not take the prior.
        iou: [B, G, P], -1 where the pair does not count for ``dynamic_k``.
        extra: [B, G, P] float32.
    """
    allowed = extra.isfinite()
    cost = torch.where(allowed & (cost < torch.inf), (cost + extra).clamp(-COST_LIMIT, COST_LIMIT), torch.inf)
    return cost, torch.where(allowed, iou, -1.0)
