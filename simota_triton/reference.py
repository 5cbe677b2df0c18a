"""The definition: SimOTA on dense [B, G, P] matrices, a line for each step. Slow by design; everything is
measured against it. Runs in float32 or float64 on any device. Numbers of steps are those of the blog text
that preset ``seed`` names.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import terms
from .config import SimOTAConfig
from .matching import Matching, match
from .problem import Problem


def cost_matrix(
    problem: Problem, config: SimOTAConfig, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost and IoU of every (gt, prior) pair.

    Returns:
        cost: [B, G, P] of ``dtype``; +inf where the gt may not take the prior.
        iou: [B, G, P] of ``dtype``; -1 where the pair does not count for ``dynamic_k``.
        gt_mask: [B, G] bool, True for real gts.
    """
    gts = problem.gts.sanitised(problem.shape[2])
    row, gt_mask = gts.padded_rows()  # [B, G] each
    gt_boxes, gt_centers, gt_labels = (
        gts.boxes[row][:, :, None],
        gts.centers[row][:, :, None],
        gts.labels[row],
    )
    pred_boxes = problem.pred_boxes.float()[:, None]  # [B, 1, P, 4]
    priors = problem.priors[None, None]  # [1, 1, P, 4]

    # the pairs that exist: real gts, and priors whose prediction can be read
    # torch's sigmoid and sum round by memory layout: one layout, one answer
    logits = problem.cls_logits.dense().float().contiguous()
    objectness = None if problem.obj_logits is None else problem.obj_logits.dense().float().contiguous()
    exists = gt_mask[:, :, None] & problem.usable_priors()[:, None]  # [B, G, P]
    label = gt_labels[:, :, None].expand(exists.shape)
    if config.cls_classes == "all":
        exists = exists & logits.isfinite().all(2)[:, None]
    else:
        exists = exists & logits.isfinite().transpose(1, 2).gather(1, label)

    # the candidate region: the prior's point lies in it for any gt of the image (or for this gt)
    inside = gt_mask[:, :, None] & terms.in_region(
        priors, gt_boxes, gt_centers, config.candidate, config.center_radius
    )
    selectable = exists & (inside if config.own_pairs_only else inside.any(1, keepdim=True))
    pool = exists if config.k_pool == "all" else selectable

    # 1-1 IoU
    wide_pred, wide_gt = pred_boxes.to(dtype), gt_boxes.to(dtype)
    iou = terms.pair_iou(wide_pred, wide_gt, config)  # [B, G, P]

    # 1-2 cost: class, IoU and centre terms, then the penalty of pairs that are not eligible
    scores = terms.class_scores(logits, objectness, config).to(dtype)  # [B, P, C]
    gt_scores = scores.transpose(1, 2).gather(1, label)  # [B, G, P]
    cls = terms.class_cost(gt_scores, iou, config)
    if config.cls_classes == "all":
        background = terms.background_cost(scores, config).sum(2)[:, None]  # [B, 1, P]
        cls = terms.swap_class(background, terms.background_cost(gt_scores, config), cls)
    center = (
        terms.center_cost(priors.to(dtype), gt_centers.to(dtype), config) if config.center_weight else None
    )
    outside = (
        ~terms.in_region(priors, gt_boxes, gt_centers, config.eligible, config.center_radius)
        if config.penalty
        else None
    )
    cost = terms.pair_cost(cls, terms.iou_cost(wide_pred, wide_gt, iou, config), center, outside, config)
    return *with_extra(
        problem, torch.where(selectable, cost, torch.inf), torch.where(pool, iou, -1.0)
    ), gt_mask


def with_extra(problem: Problem, cost: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """Cost and IoU [B, G, P] with the problem's extra cost, see :func:`terms.add_extra`."""
    if problem.extra_cost is None:
        return cost, iou
    return terms.add_extra(cost, iou, problem.extra_cost[problem.gts.padded_rows()[0]])


def assign(
    problem: Problem, config: SimOTAConfig, kernels: None = None, *, dtype: torch.dtype = torch.float32
) -> Matching:
    """1-3 and 1-4: dynamic k, selection and conflicts on the cost matrix; then ``min_positives``."""
    cost, iou, gt_mask = cost_matrix(problem, config, dtype)
    matching = match(cost, iou, config, gt_mask)
    return matching._replace(dynamic_k=problem.gts.unpad(matching.dynamic_k))
