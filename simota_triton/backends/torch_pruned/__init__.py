"""SimOTA in plain PyTorch, written for CPUs, by exact pruning: costs only for the pairs that can still be
among the k cheapest. ``pruned`` does it, ``compact`` stands in for it where a call is small.

In order of use: ``candidates`` (which gts and priors take part, and the priors near each gt), ``grid`` and
``priors`` (what is known of priors that form grids), ``block_maxima`` (the largest IoUs of a gt, found
through maxima of blocks), ``pairs`` (lists of pairs, their bounds and costs).
"""

from __future__ import annotations

import torch

from ... import reference
from ...config import SimOTAConfig
from ...matching import Matching
from ...problem import Problem
from ..gts import Gts
from . import compact, pruned


def assign(problem: Problem, config: SimOTAConfig, kernels: None = None) -> Matching:
    """The assignment of a batch, labels among it; see the module.

    An extra cost may be anything and leaves nothing to bound costs by: with one, all pairs are formed, as in
    the definition.
    """
    if problem.extra_cost is not None:
        return reference.assign(problem, config)
    batch, num_priors, num_classes = problem.shape
    device = problem.priors.device
    gts = Gts.of(problem)
    dynamic_k = torch.zeros(problem.gts.boxes.shape[0], dtype=torch.int64, device=device)
    claims = torch.zeros(batch * num_priors, dtype=torch.int32, device=device)
    won = None
    if gts.packed.numel() and not num_priors:
        dynamic_k[gts.packed] = 1
    elif gts.packed.numel():
        with torch.inference_mode():  # hundreds of small operations, each of which it makes cheaper
            found = (
                compact.match(problem, config, gts, claims) if compact.applies(problem, config, gts) else None
            )
            k, won = found or pruned.match(problem, config, gts, claims)
            dynamic_k[gts.packed] = k
    gt_index = torch.full((batch * num_priors,), -1, dtype=torch.int64, device=device)
    labels = torch.full_like(gt_index, num_classes)
    matched_iou = torch.zeros(batch * num_priors, dtype=torch.float32, device=device)
    if won is not None:
        place = gts.image.index_select(0, won.row) * num_priors + won.prior
        gt_index.scatter_(0, place, gts.slot.index_select(0, won.row))
        labels.scatter_(0, place, gts.labels.index_select(0, won.row))
        matched_iou.scatter_(0, place, won.iou)
    return Matching(
        gt_index=gt_index.view(batch, num_priors),
        matched_iou=matched_iou.view(batch, num_priors),
        dynamic_k=dynamic_k if problem.gts.padded_shape is None else dynamic_k.view(problem.gts.padded_shape),
        claims=claims.view(batch, num_priors),
        labels=labels.view(batch, num_priors),
    )
