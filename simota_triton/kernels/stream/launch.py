"""The host side of the streaming kernels: scratch memory, arguments and grids."""

from __future__ import annotations

import functools
import math
import struct
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ...config import SimOTAConfig
from ...inputs import Problem
from ...matching import Matching
from ...tuning.stream_config import StreamConfig
from .. import constants as const
from .. import launch
from ..launch import INTERPRETED, OPTIONS, Layout, Levels, codes, on_device, readable
from ..rule import Rule
from .prepare import prepare
from .rescue import rescue
from .resolve import resolve
from .select import select
from .survey import survey

Cells = tuple[tuple[int, int], ...]
"""Rows and columns of each level of the grid that priors form."""


@functools.cache
def guess_cells(num_priors: int) -> Cells:
    """The square pyramid of this many priors, each level half as wide as the one before (rounded up); () if
    there is none.

    A wrong guess groups priors badly, which costs time and nothing else.
    """
    for levels in (3, 4, 5, 2, 1):
        widest = math.isqrt(num_priors)
        least = math.isqrt(int(num_priors * 3 / 4 / (1 - 4.0**-levels))) - levels
        for side in range(widest, max(least, 0), -1):
            sides = [side]
            while len(sides) < levels:
                sides.append(-(-sides[-1] // 2))
            if sum(s * s for s in sides) == num_priors:
                return tuple((s, s) for s in sides)
    return ()


class Grid(NamedTuple):
    """How priors are grouped into tiles.

    Attributes:
        starts: First prior of each level, then P.
        widths: Cells a row of each level.
        first_tiles: First tile of each level, then T.
        tile_width: Cells a row of a tile.
    """

    starts: tuple[int, ...]
    widths: tuple[int, ...]
    first_tiles: tuple[int, ...]
    tile_width: int

    @property
    def num_tiles(self) -> int:
        return self.first_tiles[-1]


def find_grid(cells: Cells, tile: int, levels: tuple[int, ...]) -> Grid:
    """The grid of priors whose class logits lie on levels of these sizes, for tiles of ``tile`` priors.

    Priors of which no grid is known are tiled as they come: each level as rows as wide as a tile.
    """
    tile_width = 1 << ((tile.bit_length() - 1) // 2 + (tile.bit_length() - 1) % 2)
    cells = tuple((rows, columns) for rows, columns in cells if rows * columns) or (
        guess_cells(sum(levels)) if len(levels) == 1 else ()
    )
    if cells and (len(levels) == 1 or tuple(rows * columns for rows, columns in cells) == levels):
        sizes, widths = [rows * columns for rows, columns in cells], [columns for _, columns in cells]
    else:
        sizes, widths = list(levels), [tile_width] * len(levels)
    height = tile // tile_width
    rows = (-(-size // width) for size, width in zip(sizes, widths, strict=True))
    tiles = (-(-width // tile_width) * -(-down // height) for width, down in zip(widths, rows, strict=True))
    return Grid(
        tuple(accumulate(sizes, initial=0)), tuple(widths), tuple(accumulate(tiles, initial=0)), tile_width
    )


OLD_COMPILER = tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 9)

REGISTERS = 104 if OLD_COMPILER else 80
"""Registers a thread of the kernels may use; 24 warps fit a processor at 80. Left alone, ptxas takes up to
124, to have more loads under way; those that come with Triton 3.3 and 3.6 spill a few of ``select`` where it
may use fewer than 104.
"""

LIMIT = {} if INTERPRETED else {"maxnreg": REGISTERS}


class Scratch(NamedTuple):
    """Parts of the scratch memory; see ``prepare`` and ``select``."""

    slots: Tensor
    points: Tensor
    tiles: Tensor
    contested_cost: Tensor
    slot_of: Tensor
    top: Tensor
    lost: Tensor
    num_contested: Tensor
    gts: Tensor
    contested: Tensor
    cheapest: Tensor | None


def scratch_sizes(
    batch: int, num_priors: int, num_gts: int, config: SimOTAConfig, grid: Grid, kernels: StreamConfig
) -> tuple[int, ...]:
    """Elements of each part of the scratch memory: four of float32, four of int32, three of int64; multiples
    of 4.
    """
    slots = grid.num_tiles * kernels.tile
    contested = _padded(min(batch * num_priors, num_gts * config.max_dynamic_k // 2) + 1)
    return (
        Rule.of(config).planes * batch * slots,
        const.POINT.value * slots,
        const.SUMMARY.value * 32 * batch * -(-grid.num_tiles // 32),
        contested,
        _padded(num_priors),
        const.LANES.value * kernels.splits * num_gts,
        _padded(batch),
        4,
        _padded(const.TABLE_COLUMNS.value // 2 * num_gts),
        contested,
        _padded(batch * num_priors) if config.conflict == "matched" else 0,
    )


def _padded(elements: int) -> int:
    """Every part starts at a multiple of 16 bytes: Triton compiles a kernel again for an address that does
    not.
    """
    return -(-elements // 4) * 4


def scratch_bytes(sizes: tuple[int, ...]) -> int:
    """Bytes of parts of these sizes."""
    return 4 * sum(sizes[:8]) + 8 * sum(sizes[8:])


def _allocate(sizes: tuple[int, ...], device: torch.device) -> Scratch:
    """All parts in one allocation."""
    longs = 2 * sum(sizes[8:])
    try:
        memory = torch.empty(scratch_bytes(sizes) // 4, dtype=torch.float32, device=device)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"backend: 'triton-stream' needs {scratch_bytes(sizes) / 1e6:.1f} MB of scratch memory for this batch; use fewer images at "
            f"once, or free memory that PyTorch has cached with torch.cuda.empty_cache() ({error})"
        ) from error
    slots, points, tiles, contested_cost, ints, rest = memory.split_with_sizes(
        (*sizes[:4], sum(sizes[4:8]), longs)
    )
    slot_of, top, lost, num_contested = ints.view(torch.int32).split_with_sizes(sizes[4:8])
    gts, contested, claimed = rest.view(torch.int64).split_with_sizes(sizes[8:])
    cheapest = claimed if sizes[10] else None
    return Scratch(
        slots, points, tiles, contested_cost, slot_of, top, lost, num_contested, gts, contested, cheapest
    )


class Plan(NamedTuple):
    """The arguments of the kernels that follow from the configuration and from shapes other than the number
    of gts.
    """

    grid: Grid
    prepare: dict[str, Any]
    survey: dict[str, Any]
    select: dict[str, Any]
    resolve: dict[str, Any]
    rescue: dict[str, Any]


@functools.lru_cache(maxsize=1024)
def _plan(config: SimOTAConfig, kernels: StreamConfig, layout: Layout, cells: Cells, channels: int) -> Plan:
    grid = find_grid(cells, kernels.tile, layout.sizes)
    coded_channels = codes([channels])[0]
    blocks = {"widths": codes(grid.widths), "WIDTH": grid.tile_width}
    rule = Rule.of(config)
    common = {
        "RULE": rule,
        "FAST": launch.FAST,
        "TILE": kernels.tile,
        "num_warps": 1,
        "starts": codes(grid.starts),
        "first_tiles": codes(grid.first_tiles),
        **LIMIT,
        **OPTIONS,
    }
    logits = {
        **common, "LAYOUT": layout.layout, "num_tiles": grid.num_tiles,
        "cls_strides_b": layout.strides[0], "cls_strides_p": layout.strides[1], "cls_strides_c": layout.strides[2],
    }  # fmt: skip
    by_gt = {**logits, "candidate_topk": config.candidate_topk}
    # the enclosing box and a second region take the registers of some bounds
    most = 64 if config.iou_cost == "giou" else 128 if config.own_pairs_only else kernels.bounds
    bounds = min(kernels.bounds, most)
    rows = kernels.rows if INTERPRETED else kernels.sum_rows(layout.layout)
    return Plan(
        grid=grid,
        prepare={
            **common, "C": coded_channels, "num_tiles": grid.num_tiles,
            "slot_stride": rule.planes * kernels.tile, "point_stride": const.POINT.value * kernels.tile,
            "GTS": kernels.gts, **blocks,
        },
        survey={
            **by_gt, "C": coded_channels, "ALIGNED_LOGITS": layout.aligned_logits, "ROWS": rows, "BOUNDS": kernels.iou_bounds,
            "splits_log2": kernels.splits.bit_length() - 1,
            **blocks,
        },
        select={**by_gt, "splits": kernels.splits, "BOUNDS": bounds, "k_scale": _float64_bits(config.k_scale)},
        resolve={**logits, "CONFLICT": config.conflict, "GTS": kernels.gts},
        rescue={**logits, "min_positives": config.min_positives, "BOUNDS": bounds},
    )  # fmt: skip


def _float64_bits(value: float) -> int:
    """A float64 as an integer argument: Triton passes numbers as float32."""
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def _background(problem: Problem) -> tuple[Matching, Tensor]:
    """What :func:`run` gives where there is nothing to assign."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    gt_index = torch.full((batch, num_priors), -1, dtype=torch.int64, device=device)
    dynamic_k = torch.ones(gts.boxes.shape[0], dtype=torch.int64, device=device)
    matching = Matching(
        gt_index=gt_index,
        matched_iou=torch.zeros((batch, num_priors), dtype=torch.float32, device=device),
        dynamic_k=(dynamic_k if gts.mask is None else dynamic_k * gts.mask).view(gts.padded_shape or (-1,)),
        claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
    )
    return matching, torch.full_like(gt_index, channels)


def run(problem: Problem, config: SimOTAConfig, kernels: StreamConfig) -> tuple[Matching, Tensor]:
    """All kernels: the matching, and the labels, [B, P] int64."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    num_gts = gts.boxes.shape[0]
    if batch * num_priors * num_gts == 0:
        return _background(problem)
    levels = Levels.of(problem)
    plan = _plan(config, kernels, levels.layout, problem.cells or (), channels)
    num_tiles = plan.grid.num_tiles
    scratch = _allocate(scratch_sizes(batch, num_priors, num_gts, config, plan.grid, kernels), device)
    slots, points, tiles, contested_cost, slot_of, top, lost, num_contested, table, contested, cheapest = (
        scratch
    )
    gt_index = torch.empty((batch, num_priors), dtype=torch.int64, device=device)
    matched_iou = torch.empty((batch, num_priors), dtype=torch.float32, device=device)
    labels = torch.empty_like(gt_index)
    claims = torch.empty((batch, num_priors), dtype=torch.int32, device=device)
    dynamic_k = torch.empty(gts.padded_shape or (num_gts,), dtype=torch.int64, device=device)
    boxes = readable(problem.pred_boxes)
    box_strides = boxes.stride()
    mask = problem.candidate_mask
    mask_strides = (0, 0) if mask is None else mask.stride()
    offsets = gts.offsets.contiguous()
    of_gts = num_gts * kernels.splits  # programs of ``survey``
    of_sums = batch * num_tiles * (kernels.tile // plan.survey["ROWS"]) if config.cls_classes == "all" else 0
    few = min(of_gts, of_sums)
    with on_device(device):
        prepare[(batch * num_tiles,)](
            gt_index, matched_iou, labels, claims,
            slots, points, slot_of, tiles, table.view(torch.float32), lost, num_contested, cheapest,
            boxes, problem.priors.contiguous(), mask, levels.obj,
            gts.boxes.contiguous(), gts.centers.contiguous() if gts.centers.shape[0] else None, gts.labels.contiguous(), offsets,
            None if gts.mask is None else gts.mask.contiguous(),
            N=num_gts, obj_strides_b=levels.obj_strides(0), obj_strides_p=levels.obj_strides(1),
            box_stride_b=box_strides[0], box_stride_p=box_strides[1], box_stride_c=box_strides[2],
            mask_stride_b=mask_strides[0], mask_stride_p=mask_strides[1], **plan.prepare,
        )  # fmt: skip
        survey[(of_gts + of_sums,)](
            top, slots, points, tiles, table, lost, levels.cls, few=few, every_log2=((of_gts + of_sums) // max(few, 1)).bit_length() - 1,
            few_are_gts=int(few == of_gts), **plan.survey,
        )  # fmt: skip
        select[(num_gts,)](
            gt_index, matched_iou, labels, claims, dynamic_k,
            top, slots, points, slot_of, tiles, table, lost, num_contested, contested, contested_cost, cheapest,
            levels.cls, **plan.select,
        )  # fmt: skip
        resolve[(min(kernels.resolvers, contested.shape[0]),)](
            gt_index, matched_iou, labels,
            slots, points, table, num_contested, contested, contested_cost, cheapest,
            levels.cls, offsets, **plan.resolve,
        )  # fmt: skip
        if config.min_positives:
            rescue[(batch,)](
                gt_index, matched_iou, labels,
                slots, points, slot_of, tiles, table, top,  # lists that nobody reads any more make room for the counts
                levels.cls, offsets, **plan.rescue,
            )  # fmt: skip
    return Matching(gt_index, matched_iou, dynamic_k, claims), labels
