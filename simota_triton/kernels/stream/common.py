"""What the launches of both rules have in common: compiler options, arguments and the first kernel."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ...problem import Problem
from ...tuning.stream_config import StreamConfig
from .. import constants as const
from .. import host
from ..host import INTERPRETED, OPTIONS, Layout, Logits, codes, readable
from ..rule import CompiledRule
from .grid import Grid
from .prepare import prepare
from .scratch import Scratch

OLD_COMPILER = tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 9)

REGISTERS = 104 if OLD_COMPILER else 80
"""Registers that a thread of the kernels may use: 24 warps fit a multiprocessor at 80. Left alone, ptxas
takes up to 124, to have more loads under way. The versions of it that come with Triton 3.3 and 3.6 spill some
of ``select`` where it may use fewer than 104.
"""

LIMIT = {} if INTERPRETED else {"maxnreg": REGISTERS}


def arguments(rule: CompiledRule, kernels: StreamConfig, grid: Grid) -> dict[str, Any]:
    """The arguments of all kernels over tiles."""
    return {
        "RULE": rule,
        "FAST": host.FAST,
        "TILE": kernels.tile,
        "num_warps": 1,
        "starts": codes(grid.starts),
        "first_tiles": codes(grid.first_tiles),
        **LIMIT,
        **OPTIONS,
    }


def logits_arguments(layout: Layout, grid: Grid) -> dict[str, Any]:
    """The arguments, beside those, of kernels that read class logits."""
    return {
        "LAYOUT": layout.layout, "num_tiles": grid.num_tiles, "cls_strides_b": layout.strides[0],
        "cls_strides_p": layout.strides[1], "cls_strides_c": layout.strides[2],
    }  # fmt: skip


def prepare_arguments(rule: CompiledRule, kernels: StreamConfig, grid: Grid, channels: int) -> dict[str, Any]:
    """The arguments, beside those of all kernels, of ``prepare``."""
    return {
        "C": codes([channels])[0], "num_tiles": grid.num_tiles, "slot_stride": rule.planes * kernels.tile,
        "point_stride": const.POINT.value * kernels.tile, "GTS": kernels.gts, "widths": codes(grid.widths),
        "WIDTH": grid.tile_width,
    }  # fmt: skip


def outputs(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for gt_index, matched_iou, labels and claims, [B, P] each."""
    shape, device = problem.shape[:2], problem.priors.device
    gt_index = torch.empty(shape, dtype=torch.int64, device=device)
    matched_iou = torch.empty(shape, dtype=torch.float32, device=device)
    labels = torch.empty_like(gt_index)
    return gt_index, matched_iou, labels, torch.empty(shape, dtype=torch.int32, device=device)


def launch_prepare(
    problem: Problem,
    logits: Logits,
    written: tuple[Tensor | None, ...],
    scratch: Scratch,
    offsets: Tensor,
    arguments: dict[str, Any],
) -> None:
    """The first kernel.

    Args:
        problem: The batch.
        logits: Its logits.
        written: gt_index, matched_iou, labels, claims and scores, of which the last is optional.
        scratch: Scratch memory.
        offsets: Offsets of the gts, contiguous.
        arguments: What follows from the configuration.
    """
    gts, mask = problem.gts, problem.candidate_mask
    boxes = readable(problem.pred_boxes)
    box_strides = boxes.stride()
    mask_strides = (0, 0) if mask is None else mask.stride()
    prepare[(problem.shape[0] * arguments["num_tiles"],)](
        *written,
        scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts.view(torch.float32),
        scratch.unreadable, scratch.num_conflicts, scratch.cheapest_claims, scratch.largest,
        boxes, problem.priors.contiguous(), mask, logits.obj,
        gts.boxes.contiguous(), None if gts.given_centers is None else gts.given_centers.contiguous(),
        gts.labels.contiguous(), offsets, None if gts.mask is None else gts.mask.contiguous(),
        N=gts.boxes.shape[0], obj_strides_b=logits.obj_strides(0), obj_strides_p=logits.obj_strides(1),
        box_stride_b=box_strides[0], box_stride_p=box_strides[1], box_stride_c=box_strides[2],
        mask_stride_b=mask_strides[0], mask_stride_p=mask_strides[1], **arguments,
    )  # fmt: skip
