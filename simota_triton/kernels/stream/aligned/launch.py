"""The host side of the kernels of the task-aligned rule: their arguments and launches."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from ....config import TaskAlignedConfig
from ....matching import Matching
from ....problem import Problem
from ....tuning.stream_config import StreamConfig
from ...host import INTERPRETED, Layout, Logits, on_device
from ...rule import AlignedRule
from ..common import arguments, launch_prepare, logits_arguments, outputs, prepare_arguments
from ..grid import Cells, Grid, find_grid
from ..scratch import allocate, scratch_parts
from .resolve import resolve_aligned
from .select import select_aligned
from .targets import largest_owned, rank_owned, write_targets

BLOCK = 1024 if INTERPRETED else 256
"""Priors a program of the last kernels."""


class Plan(NamedTuple):
    """The arguments of the kernels that follow from the configuration and from shapes other than the number
    of gts.
    """

    grid: Grid
    prepare: dict[str, Any]
    select: dict[str, Any]
    resolve: dict[str, Any]
    owned: dict[str, Any]


@functools.lru_cache(maxsize=1024)
def _plan(
    config: TaskAlignedConfig, kernels: StreamConfig, layout: Layout, cells: Cells, channels: int
) -> Plan:
    grid = find_grid(cells, kernels.tile, layout.sizes)
    rule = AlignedRule.of(config)
    common = arguments(rule, kernels, grid)
    logits = {**common, **logits_arguments(layout, grid)}
    num_priors = sum(layout.sizes)
    over_tiles = ("FAST", "TILE", "starts", "first_tiles")
    return Plan(
        grid=grid,
        prepare={**common, **prepare_arguments(rule, kernels, grid, channels)},
        select={**logits, "topk": config.topk, "BOUNDS": kernels.bounds},
        resolve={**logits, "GTS": kernels.gts},
        owned={
            **{name: value for name, value in common.items() if name not in over_tiles},
            "P": num_priors, "blocks": -(-num_priors // BLOCK), "BLOCK": BLOCK,
        },
    )  # fmt: skip


def _background(problem: Problem, config: TaskAlignedConfig) -> Matching:
    """What :func:`run` gives where there is nothing to assign."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.sanitised().gts, problem.priors.device
    gt_index = torch.full((batch, num_priors), -1, dtype=torch.int64, device=device)
    nothing = torch.zeros((batch, num_priors), dtype=torch.float32, device=device)
    asked = torch.full((gts.boxes.shape[0],), config.topk, dtype=torch.int64, device=device)
    return Matching(
        gt_index=gt_index,
        matched_iou=nothing,
        dynamic_k=(asked if gts.mask is None else asked * gts.mask).view(gts.padded_shape or (-1,)),
        claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
        labels=torch.full_like(gt_index, channels),
        scores=nothing.clone(),
    )


def run(problem: Problem, config: TaskAlignedConfig, kernels: StreamConfig) -> Matching:
    """All kernels; the matching holds labels and scores too."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    num_gts = gts.boxes.shape[0]
    if batch * num_priors * num_gts == 0:
        return _background(problem, config)
    logits = Logits.of(problem)
    plan = _plan(config, kernels, logits.layout, problem.cells or (), channels)
    scratch = allocate(scratch_parts(batch, num_priors, num_gts, config, plan.grid, kernels), device)
    gt_index, matched_iou, labels, claims = written = outputs(problem)
    scores = torch.empty_like(matched_iou)
    dynamic_k = torch.empty(gts.padded_shape or (num_gts,), dtype=torch.int64, device=device)
    offsets = gts.offsets.contiguous()
    over_priors = (batch * plan.owned["blocks"],)
    with on_device(device):
        launch_prepare(problem, logits, (*written, scores), scratch, offsets, plan.prepare)
        select_aligned[(num_gts,)](
            gt_index, matched_iou, claims, scores, dynamic_k,
            scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts,
            scratch.num_conflicts, scratch.conflicts, scratch.cheapest_claims, logits.cls, **plan.select,
        )  # fmt: skip
        resolve_aligned[(min(kernels.resolvers, scratch.conflicts.shape[0]),)](
            gt_index, matched_iou, scores,
            scratch.slots, scratch.points, scratch.gts, scratch.num_conflicts, scratch.conflicts,
            scratch.cheapest_claims, logits.cls, offsets, **plan.resolve,
        )  # fmt: skip
        for turn in range(config.topk2 or 0):
            rank_owned[over_priors](gt_index, scores, scratch.largest, offsets, turn=turn + 1, **plan.owned)
        largest_owned[over_priors](gt_index, matched_iou, scores, scratch.largest, offsets, **plan.owned)
        write_targets[over_priors](
            gt_index, matched_iou, labels, scores, scratch.largest, scratch.gts, offsets,
            FAST=plan.select["FAST"], **plan.owned,
        )  # fmt: skip
    return Matching(gt_index, matched_iou, dynamic_k, claims, labels, scores)
