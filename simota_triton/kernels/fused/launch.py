"""The host side of the fused kernels: their arguments and grids."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...checks import fail
from ...config import SimOTAConfig
from ...matching import Matching
from ...problem import Problem
from ...tuning.kernel_config import KernelConfig
from .. import constants as const
from .. import host
from ..host import INTERPRETED, OPTIONS, Logits, codes, on_device, readable
from ..rule import Rule
from .cost_pass import cost_pass
from .prior_pass import prior_pass
from .rescue_pass import rescue_pass

MOST_PROGRAMS = 65_535
"""Programs along the second and third axis of a grid; the first takes 2^31 - 1."""


class Shared(NamedTuple):
    """What both passes read, and the arguments they take under one name."""

    logits: Logits
    boxes: Tensor
    priors: Tensor
    keywords: dict[str, Any]

    @classmethod
    def of(cls, problem: Problem, config: SimOTAConfig) -> Shared:
        """The arguments of a problem with at least one prior."""
        logits = Logits.of(problem)
        layout = logits.layout
        boxes = readable(problem.pred_boxes)
        keywords = {
            "starts": codes(layout.starts),
            "cls_strides_b": layout.strides[0],
            "cls_strides_p": layout.strides[1],
            "cls_strides_c": layout.strides[2],
            "box_stride_b": boxes.stride(0),
            "box_stride_p": boxes.stride(1),
            "box_stride_c": boxes.stride(2),
            "RULE": Rule.of(config),
            "LAYOUT": layout.layout,
            "ALIGNED": layout.aligned,
            "ALIGNED_LOGITS": layout.aligned_logits,
            "FAST": host.FAST,
            **OPTIONS,
        }
        return cls(logits, boxes, problem.priors.contiguous(), keywords)


class Rows(NamedTuple):
    """What ``prior_pass`` hands to ``cost_pass``.

    Attributes:
        background: [B, P] float32, see there.
        objectness: [B, P] float32, or None.
        gt_table: [N, GT_COLUMNS] float32, see ``gts``.
    """

    background: Tensor
    objectness: Tensor | None
    gt_table: Tensor


def run(problem: Problem, config: SimOTAConfig, kernels: KernelConfig, num_gts: int) -> tuple[Tensor, Tensor]:
    """Both passes: cost and IoU, [B, G, P] float32 each."""
    batch, num_priors, _ = problem.shape
    if batch * num_gts * num_priors == 0:
        nothing = torch.empty((batch, num_gts, num_priors), dtype=torch.float32, device=problem.priors.device)
        return nothing, nothing.clone()
    problem = problem.sanitised()
    shared = Shared.of(problem, config)
    return run_cost_pass(problem, run_prior_pass(problem, kernels, shared), kernels, num_gts, shared)


def run_prior_pass(problem: Problem, kernels: KernelConfig, shared: Shared) -> Rows:
    """The first pass."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    logits = shared.logits
    rows = Rows(
        background=torch.empty((batch, num_priors), dtype=torch.float32, device=device),
        objectness=None
        if logits.obj is None
        else torch.empty((batch, num_priors), dtype=torch.float32, device=device),
        gt_table=torch.empty(
            (gts.boxes.shape[0], const.GT_COLUMNS.value), dtype=torch.float32, device=device
        ),
    )
    limit = {} if INTERPRETED else {"maxnreg": kernels.prior_registers}
    mask_strides = (0, 0) if problem.candidate_mask is None else problem.candidate_mask.stride()
    num_tiles = logits.tiles(kernels.rows)
    with on_device(device):
        prior_pass[(batch * num_tiles,)](
            *rows,
            shared.boxes, shared.priors, problem.candidate_mask, logits.cls, logits.obj,
            *(value.contiguous() for value in (gts.boxes, gts.centers, gts.labels, gts.offsets)),
            None if gts.mask is None else gts.mask.contiguous(),
            C=codes([channels])[0], num_tiles=num_tiles,
            obj_strides_b=logits.obj_strides(0), obj_strides_p=logits.obj_strides(1),
            mask_stride_b=mask_strides[0], mask_stride_p=mask_strides[1],
            ROWS=kernels.rows, num_warps=kernels.prior_warps, **limit, **shared.keywords,
        )  # fmt: skip
    return rows


def run_cost_pass(
    problem: Problem, rows: Rows, kernels: KernelConfig, num_gts: int, shared: Shared
) -> tuple[Tensor, Tensor]:
    """The second pass."""
    batch, num_priors, _ = problem.shape
    num_tiles, gts_per_program = (
        shared.logits.tiles(kernels.tile),
        max(kernels.gts_per_program, -(-num_gts // MOST_PROGRAMS)),
    )
    if num_tiles > MOST_PROGRAMS:
        fail(
            "pred_boxes",
            f"at most {MOST_PROGRAMS * kernels.tile} priors for backend 'triton'",
            f"{num_priors}",
            "use 'triton-stream'",
        )
    cost, iou = (
        torch.empty((batch, num_gts, num_priors), dtype=torch.float32, device=problem.priors.device)
        for _ in range(2)
    )
    with on_device(problem.priors.device):
        cost_pass[batch, num_tiles, -(-num_gts // gts_per_program)](
            cost, iou,
            rows.background, rows.objectness, shared.boxes, shared.priors, shared.logits.cls,
            problem.gts.offsets.contiguous(), rows.gt_table.view(torch.int64),
            G=num_gts, gts_per_program=gts_per_program,
            TILE=kernels.tile, num_warps=kernels.cost_warps, **shared.keywords,
        )  # fmt: skip
    return cost, iou


def run_rescue_pass(matching: Matching, cost: Tensor, iou: Tensor, config: SimOTAConfig) -> None:
    """The third pass, where there are ``min_positives``: changes a matching in place."""
    batch, num_gts, num_priors = cost.shape
    if cost.numel():
        with on_device(cost.device):
            rescue_pass[(batch,)](
                matching.gt_index, matching.matched_iou,
                torch.empty((batch, num_gts), dtype=torch.int32, device=cost.device), cost, iou,
                G=num_gts, P=num_priors, min_positives=config.min_positives, RULE=Rule.of(config),
                BLOCK=1024, num_warps=4, **OPTIONS,
            )  # fmt: skip
