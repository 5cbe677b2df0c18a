"""The definition: the task-aligned assigner on dense [B, G, P] matrices, a line for each step. Slow by
design; everything is measured against it. Runs in float32 or float64 on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TaskAlignedConfig
from ..matching import Matching
from ..problem import Problem
from . import terms
from .matching import match


def metric_matrix(
    problem: Problem, config: TaskAlignedConfig, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Metric, overlap and region of every (gt, prior) pair.

    Returns:
        metric: [B, G, P] of ``dtype``; 0 where the gt may not take the prior.
        overlap: [B, G, P] of ``dtype``; -1 where the gt may not take the prior.
        inside: [B, G, P] bool, whether the prior lies in the gt's region.
        gt_mask: [B, G] bool, True for real gts.
    """
    gts = problem.gts.sanitised(problem.shape[2])
    row, gt_mask = gts.padded_rows()  # [B, G] each
    gt_boxes, gt_labels = gts.boxes[row][:, :, None], gts.labels[row]
    pred_boxes = problem.pred_boxes.float()[:, None]  # [B, 1, P, 4]

    # the pairs that exist: real gts, and priors whose prediction can be read
    logits = problem.cls_logits.dense().transpose(1, 2)  # [B, C, P]
    label = gt_labels[:, :, None].expand(-1, -1, logits.shape[2])
    own_logits = logits.gather(1, label).float()  # [B, G, P]
    exists = gt_mask[:, :, None] & problem.usable_priors()[:, None] & own_logits.isfinite()
    if problem.extra_cost is not None:  # which holds a mask of pairs here
        exists = exists & problem.extra_cost[row].isfinite()

    inside = exists & terms.in_region(problem.priors, terms.region_boxes(gt_boxes, config), config)
    overlap = terms.pair_overlap(pred_boxes.to(dtype), gt_boxes.to(dtype), config)
    scores = terms.class_scores(own_logits, config).to(dtype)
    metric = terms.metric(scores, overlap, config)
    return torch.where(exists, metric, 0.0), torch.where(exists, overlap, -1.0), inside, gt_mask


def assign(
    problem: Problem, config: TaskAlignedConfig, kernels: None = None, *, dtype: torch.dtype = torch.float32
) -> Matching:
    """The matching of the matrices of a batch."""
    metric, overlap, inside, gt_mask = metric_matrix(problem, config, dtype)
    matching = match(metric, overlap, inside, config, gt_mask)
    return matching._replace(dynamic_k=problem.gts.unpad(matching.dynamic_k))
