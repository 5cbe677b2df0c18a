"""The task-aligned rule in plain PyTorch, on lists of pairs: only priors in a gt's region count, and these
are index ranges of grids, or, of a rotated box, lie in those of the box around it.

In order of use: ``grids`` (which priors lie in a box), ``pairs`` (overlap and metric of pairs), ``match``
(selection and conflicts).
"""

from __future__ import annotations

import torch

from ...config import TaskAlignedConfig
from ...matching import Matching
from ...problem import Problem
from ...task_aligned import terms
from ..gts import Gts
from .match import match
from .pairs import PairTerms


def assign(problem: Problem, config: TaskAlignedConfig, kernels: None = None) -> Matching:
    """The assignment of a batch, labels among it; see the module."""
    batch, num_priors, num_classes = problem.shape
    device = problem.priors.device
    gts = Gts.of(problem)
    asked = torch.zeros(problem.gts.boxes.shape[0], dtype=torch.int64, device=device)
    asked[gts.packed] = config.topk
    gt_index = torch.full((batch * num_priors,), -1, dtype=torch.int64, device=device)
    labels = torch.full_like(gt_index, num_classes)
    matched_iou = torch.zeros(batch * num_priors, dtype=torch.float32, device=device)
    scores = torch.zeros_like(matched_iou)
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=device)
    if gts.packed.numel() and num_priors:
        with torch.inference_mode():  # a hundred small operations, each of which it makes cheaper
            won = match(PairTerms(problem, config, gts), claims)
            largest = torch.zeros((2, gts.packed.shape[0]), dtype=torch.float32, device=device)
            for values, own in zip(largest, (won.metric, won.overlap), strict=True):
                values.scatter_reduce_(0, won.row, own, "amax")
            metric, overlap = largest.index_select(1, won.row)
            target = terms.target(won.metric, metric, overlap, config.norm_eps)
            gt_index.scatter_(0, won.place, gts.slot.index_select(0, won.row))
            labels.scatter_(0, won.place, gts.labels.index_select(0, won.row))
            matched_iou.scatter_(0, won.place, won.overlap)
            scores.scatter_(0, won.place, target)
    shape = (batch, num_priors)
    return Matching(
        gt_index=gt_index.view(shape),
        matched_iou=matched_iou.view(shape),
        dynamic_k=asked if problem.gts.padded_shape is None else asked.view(problem.gts.padded_shape),
        claims=claims.view(shape),
        labels=labels.view(shape),
        scores=scores.view(shape),
    )
