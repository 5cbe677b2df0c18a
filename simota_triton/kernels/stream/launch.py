"""The host side of the streaming kernels: their arguments and launches."""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import torch

from ...config import SimOTAConfig, TaskAlignedConfig
from ...matching import Matching
from ...problem import Problem
from ...tuning.stream_config import StreamConfig
from ..host import INTERPRETED, Layout, Logits, codes, on_device
from ..rule import Rule
from .aligned import launch as aligned
from .common import arguments, launch_prepare, logits_arguments, outputs, prepare_arguments
from .grid import Cells, Grid, find_grid
from .rescue import rescue
from .resolve import resolve
from .scratch import allocate, scratch_parts
from .select import select
from .sums_and_ious import sums_and_ious


class Plan(NamedTuple):
    """The arguments of the kernels that follow from the configuration and from shapes other than the number
    of gts.
    """

    grid: Grid
    prepare: dict[str, Any]
    sums_and_ious: dict[str, Any]
    select: dict[str, Any]
    resolve: dict[str, Any]
    rescue: dict[str, Any]


@functools.lru_cache(maxsize=1024)
def _plan(config: SimOTAConfig, kernels: StreamConfig, layout: Layout, cells: Cells, channels: int) -> Plan:
    grid = find_grid(cells, kernels.tile, layout.sizes)
    rule = Rule.of(config)
    common = arguments(rule, kernels, grid)
    logits = {**common, **logits_arguments(layout, grid)}
    by_gt = {**logits, "candidate_topk": config.candidate_topk}
    bounds = kernels.select_bounds(config)
    rows = kernels.rows if INTERPRETED else kernels.sum_rows(layout.layout)
    return Plan(
        grid=grid,
        prepare={**common, **prepare_arguments(rule, kernels, grid, channels)},
        sums_and_ious={
            **by_gt, "C": codes([channels])[0], "ALIGNED_LOGITS": layout.aligned_logits, "ROWS": rows,
            "BOUNDS": kernels.iou_bounds, "splits_log2": kernels.splits.bit_length() - 1,
            "widths": codes(grid.widths), "WIDTH": grid.tile_width,
        },
        select={
            **by_gt, "splits": kernels.splits, "BOUNDS": bounds, "k_scale": _float64_bits(config.k_scale),
        },
        resolve={**logits, "CONFLICT": config.conflict, "GTS": kernels.gts},
        # the counts take the registers of some bounds too
        rescue={**logits, "min_positives": config.min_positives, "BOUNDS": min(bounds, 64)},
    )  # fmt: skip


def _float64_bits(value: float) -> int:
    """A float64 as an integer argument: Triton passes numbers as float32."""
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def _background(problem: Problem) -> Matching:
    """What :func:`run` gives where there is nothing to assign."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.sanitised().gts, problem.priors.device
    gt_index = torch.full((batch, num_priors), -1, dtype=torch.int64, device=device)
    dynamic_k = torch.ones(gts.boxes.shape[0], dtype=torch.int64, device=device)
    return Matching(
        gt_index=gt_index,
        matched_iou=torch.zeros((batch, num_priors), dtype=torch.float32, device=device),
        dynamic_k=(dynamic_k if gts.mask is None else dynamic_k * gts.mask).view(gts.padded_shape or (-1,)),
        claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
        labels=torch.full_like(gt_index, channels),
    )


def run(problem: Problem, config: SimOTAConfig | TaskAlignedConfig, kernels: StreamConfig) -> Matching:
    """All kernels of a rule; the matching holds the labels too."""
    if isinstance(config, TaskAlignedConfig):
        return aligned.run(problem, config, kernels)
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    num_gts = gts.boxes.shape[0]
    if batch * num_priors * num_gts == 0:
        return _background(problem)
    logits = Logits.of(problem)
    plan = _plan(config, kernels, logits.layout, problem.cells or (), channels)
    num_tiles = plan.grid.num_tiles
    scratch = allocate(scratch_parts(batch, num_priors, num_gts, config, plan.grid, kernels), device)
    gt_index, matched_iou, labels, claims = written = outputs(problem)
    dynamic_k = torch.empty(gts.padded_shape or (num_gts,), dtype=torch.int64, device=device)
    offsets = gts.offsets.contiguous()
    of_gts = num_gts * kernels.splits  # programs of ``sums_and_ious``
    of_sums = (
        batch * num_tiles * (kernels.tile // plan.sums_and_ious["ROWS"]) if config.cls_classes == "all" else 0
    )
    minority = min(of_gts, of_sums)
    with on_device(device):
        launch_prepare(problem, logits, (*written, None), scratch, offsets, plan.prepare)
        sums_and_ious[(of_gts + of_sums,)](
            scratch.top_ious, scratch.slots, scratch.points, scratch.tiles, scratch.gts, scratch.unreadable,
            logits.cls,
            minority=minority, minority_every_log2=((of_gts + of_sums) // max(minority, 1)).bit_length() - 1,
            minority_is_gts=int(minority == of_gts), **plan.sums_and_ious,
        )  # fmt: skip
        select[(num_gts,)](
            gt_index, matched_iou, labels, claims, dynamic_k,
            scratch.top_ious, scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts,
            scratch.unreadable, scratch.num_conflicts, scratch.conflicts, scratch.conflict_costs,
            scratch.cheapest_claims, logits.cls, **plan.select,
        )  # fmt: skip
        resolve[(min(kernels.resolvers, scratch.conflicts.shape[0]),)](
            gt_index, matched_iou, labels,
            scratch.slots, scratch.points, scratch.gts, scratch.num_conflicts, scratch.conflicts,
            scratch.conflict_costs, scratch.cheapest_claims, logits.cls, offsets, **plan.resolve,
        )  # fmt: skip
        if config.min_positives:
            rescue[(batch,)](
                gt_index, matched_iou, labels,
                scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts,
                scratch.top_ious,  # lists that nobody reads any more make room for the counts
                logits.cls, offsets, **plan.rescue,
            )  # fmt: skip
    return Matching(gt_index, matched_iou, dynamic_k, claims, labels)
