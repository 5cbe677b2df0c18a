"""The fused backend for NVIDIA GPUs: two Triton passes write cost and IoU of every pair, ``matching.py`` does
the rest.

Nothing waits for the host, unless gts come packed with their offsets on the device: how many gts the largest
image holds, which is the height of the matrices, is then read back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import SimOTAConfig
from ..matching import Matching, match
from ..problem import Problem
from ..reference import with_extra
from ..tuning.choice import configuration
from ..tuning.kernel_config import KernelConfig, Shape
from . import triton_refusal

BYTES_A_PAIR = 30
"""Peak memory for every (gt, prior) pair of the padded batch: cost and IoU, and the keys that the matching
sorts.
"""


def assign(problem: Problem, config: SimOTAConfig, kernels: KernelConfig | None = None) -> Matching:
    """The assignment of a batch; see the module.

    Raises:
        RuntimeError: The kernels cannot run here; the message says why.
        torch.OutOfMemoryError: The matrices do not fit; the message gives their size and what to do.
    """
    try:
        cost, iou, gt_mask = cost_matrix(problem, config, kernels)
        matching = match(cost, iou, config, gt_mask, min_positives=0)
        if config.min_positives:
            from ..kernels.fused import launch

            launch.run_rescue_pass(matching, cost, iou, config)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(_no_room(problem, error)) from error
    return matching._replace(dynamic_k=problem.gts.unpad(matching.dynamic_k))


def cost_matrix(
    problem: Problem, config: SimOTAConfig, kernels: KernelConfig | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost and IoU of every pair, [B, G, P] float32, and which gts are real, [B, G]; as
    ``reference.cost_matrix``.

    Args:
        problem: The batch.
        config: The configuration.
        kernels: Launch parameters; None: those that ``tuning.choice`` picks for the GPU and the shape.

    Raises:
        RuntimeError: As :func:`assign`.
    """
    device = problem.priors.device
    refusal = triton_refusal(device)
    if refusal is not None:
        raise RuntimeError(f"backend: 'triton' cannot run on {device}: {refusal}; use backend='torch'")
    from ..kernels.fused import launch

    problem = problem.sanitised()
    gt_mask = problem.gts.padded_rows()[1]
    batch, num_priors, _ = problem.shape
    if kernels is None:
        kernels = configuration("triton", device, Shape(batch, num_priors, gt_mask.shape[1]))
    cost, iou = launch.run(problem, config, kernels, gt_mask.shape[1])
    return *with_extra(problem, cost, iou), gt_mask


def _no_room(problem: Problem, error: Exception) -> str:
    batch, num_priors, _ = problem.shape
    width = problem.gts.padded_rows()[0].shape[1]
    return (
        f"backend: 'triton' keeps every (gt, prior) pair, [B, G, P] = [{batch}, {width}, {num_priors}], "
        f"which takes about {BYTES_A_PAIR * batch * width * num_priors / 1e9:.1f} GB; use backend='torch', "
        f"whose memory does not grow with G x P, or fewer images at once ({error})"
    )
