"""The host side of the streaming kernels: scratch memory, arguments and grids."""

from __future__ import annotations

import functools
import math
import struct
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...config import SimOTAConfig
from ...inputs import Problem
from ...matching import Matching
from ...tuning.stream_config import StreamConfig
from ..gts import TABLE_COLUMNS
from ..launch import INTERPRETED, OPTIONS, Shared, codes, on_device
from .class_sums import class_sums
from .prepare import prepare
from .resolve import resolve
from .select import select
from .tiles import SUMMARY
from .top_iou import top_iou
from .visits import LANES

Cells = tuple[tuple[int, int], ...]
"""Rows and columns of each level of the grid that priors form."""


@functools.cache
def guess_cells(num_priors: int) -> Cells:
    """The square pyramid of this many priors, each level half as wide as the one before (rounded up); () if there is none.

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
        tile_width: Cells a row of a tile.
        num_tiles: T.
    """

    starts: tuple[int, ...]
    widths: tuple[int, ...]
    tile_width: int
    num_tiles: int

    @classmethod
    def of(cls, problem: Problem, tile: int, levels: tuple[int, ...]) -> Grid:
        """The grid of a problem whose class logits lie on levels of these sizes.

        Priors of which no grid is known are tiled as they come: each level as rows as wide as a tile.
        """
        return _grid(problem.cells or (), tile, levels)


@functools.lru_cache(maxsize=256)
def _grid(cells: Cells, tile: int, levels: tuple[int, ...]) -> Grid:
    tile_width = 1 << ((tile.bit_length() - 1) // 2 + (tile.bit_length() - 1) % 2)
    cells = tuple((rows, columns) for rows, columns in cells if rows * columns) or (guess_cells(sum(levels)) if len(levels) == 1 else ())
    if cells and (len(levels) == 1 or tuple(rows * columns for rows, columns in cells) == levels):
        sizes, widths = [rows * columns for rows, columns in cells], [columns for _, columns in cells]
    else:
        sizes, widths = list(levels), [tile_width] * len(levels)
    height = tile // tile_width
    num_tiles = 0
    for size, width in zip(sizes, widths, strict=True):
        rows = -(-size // width)
        num_tiles += -(-width // tile_width) * -(-rows // height)
    return Grid(tuple(accumulate(sizes, initial=0)), tuple(widths), tile_width, num_tiles)


LIMIT = {} if INTERPRETED else {"maxnreg": 80}
"""24 warps fit a processor at 80 registers a thread. Left alone, ptxas takes up to 124, to have more loads under way."""


class Scratch(NamedTuple):
    """Parts of the scratch memory; see ``prepare`` and ``select``."""

    contested: Tensor
    cheapest: Tensor | None
    gts: Tensor
    slots: Tensor
    points: Tensor
    slot_of: Tensor
    tiles: Tensor
    top: Tensor
    contested_cost: Tensor
    num_contested: Tensor


def scratch_sizes(batch: int, num_priors: int, num_gts: int, config: SimOTAConfig, grid: Grid, kernels: StreamConfig) -> dict[str, int]:
    """Bytes of each part of the scratch memory."""
    slots = grid.num_tiles * kernels.tile
    contested = max(1, min(batch * num_priors, num_gts * config.max_dynamic_k // 2))
    return {
        "contested": 8 * contested,
        "cheapest": 8 * batch * num_priors if config.conflict == "matched" else 0,
        "gts": 4 * TABLE_COLUMNS * num_gts,
        "slots": 4 * (6 if config.score == "joint" else 5) * batch * slots,
        "points": 4 * 5 * slots,
        "slot_of": 4 * num_priors,
        "tiles": 4 * SUMMARY.value * batch * grid.num_tiles,
        "top": 4 * LANES.value * kernels.splits * num_gts,
        "contested_cost": 4 * contested,
        "num_contested": 4,
    }


_DTYPES = {
    "contested": torch.int64,
    "cheapest": torch.int64,
    "gts": torch.int64,
    "slot_of": torch.int32,
    "top": torch.int32,
    "num_contested": torch.int32,
}
_ALIGNMENT = 16


def _allocate(sizes: dict[str, int], device: torch.device) -> Scratch:
    """All parts in one allocation; None in place of a part without a size."""
    padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes.values()]
    parts = torch.empty(sum(padded), dtype=torch.uint8, device=device).split(padded)
    typed: Any = (part.view(_DTYPES.get(name, torch.float32)) if len(part) else None for name, part in zip(sizes, parts, strict=True))
    return Scratch(*typed)


def _background(problem: Problem) -> Matching:
    """What :func:`run` gives where there is nothing to assign."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    gt_index = torch.full((batch, num_priors), -1, dtype=torch.int64, device=device)
    dynamic_k = torch.ones(gts.boxes.shape[0], dtype=torch.int64, device=device)
    return Matching(
        gt_index=gt_index,
        matched_iou=torch.zeros((batch, num_priors), device=device),
        dynamic_k=(dynamic_k if gts.mask is None else dynamic_k * gts.mask).view(gts.padded_shape or (-1,)),
        claims=torch.zeros((batch, num_priors), dtype=torch.int32, device=device),
        labels=torch.full_like(gt_index, channels),
    )


@functools.cache
def _float64_bits(value: float) -> int:
    """A float64 as an integer argument: Triton passes numbers as float32."""
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def run(problem: Problem, config: SimOTAConfig, kernels: StreamConfig) -> Matching:
    """All kernels."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    num_gts = gts.boxes.shape[0]
    if batch * num_priors * num_gts == 0:
        return _background(problem)
    shared = Shared.of(problem, config)
    levels = shared.levels
    grid = Grid.of(problem, kernels.tile, tuple(level.shape[1] for level in levels.cls))
    sizes = scratch_sizes(batch, num_priors, num_gts, config, grid, kernels)
    scratch = _allocate(sizes, device)
    gt_index = torch.empty((batch, num_priors), dtype=torch.int64, device=device)
    matched_iou = torch.empty((batch, num_priors), device=device)
    labels = torch.empty_like(gt_index)
    claims = torch.empty((batch, num_priors), dtype=torch.int32, device=device)
    dynamic_k = torch.empty(num_gts, dtype=torch.int64, device=device)
    offsets = gts.offsets.contiguous()
    starts = codes(grid.starts)
    common = {
        "RULE": shared.keywords["RULE"], "FAST": shared.keywords["FAST"], "TILE": kernels.tile, "num_warps": 1, **LIMIT, **OPTIONS,
    }  # fmt: skip
    logits = {
        "cls_levels": levels.cls, "LAYOUT": levels.layout,
        **{name: shared.keywords[name] for name in ("cls_strides_b", "cls_strides_p", "cls_strides_c")},
    }  # fmt: skip
    with on_device(device):
        mask_strides = (0, 0) if problem.candidate_mask is None else problem.candidate_mask.stride()
        prepare[grid.num_tiles, batch](
            gt_index, matched_iou, labels, claims,
            scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts.view(torch.float32), scratch.num_contested,
            scratch.cheapest,
            shared.boxes, shared.priors, problem.candidate_mask, levels.obj,
            gts.boxes.contiguous(), gts.centers.contiguous() if len(gts.centers) == num_gts else None, gts.labels.contiguous(), offsets,
            None if gts.mask is None else gts.mask.contiguous(),
            C=codes([channels])[0], N=num_gts, num_tiles=grid.num_tiles, num_slots=grid.num_tiles * kernels.tile,
            starts=starts, widths=codes(grid.widths),
            obj_strides_b=None if levels.obj is None else codes(level.stride(0) for level in levels.obj),
            obj_strides_p=None if levels.obj is None else codes(level.stride(1) for level in levels.obj),
            **{name: shared.keywords[name] for name in ("box_stride_b", "box_stride_p", "box_stride_c")},
            mask_stride_b=mask_strides[0], mask_stride_p=mask_strides[1],
            WIDTH=grid.tile_width, GTS=kernels.gts, **common,
        )  # fmt: skip
        if config.cls_classes == "all":
            class_sums[grid.num_tiles * kernels.tile // kernels.rows, batch](
                scratch.slots,
                C=codes([channels])[0], num_tiles=grid.num_tiles, starts=starts, widths=codes(grid.widths),
                ALIGNED_LOGITS=levels.aligned_logits, WIDTH=grid.tile_width, ROWS=kernels.rows, **logits, **common,
            )  # fmt: skip
        top_iou[num_gts, kernels.splits](
            scratch.top,
            scratch.slots, scratch.points, scratch.tiles, scratch.gts,
            candidate_topk=config.candidate_topk, num_tiles=grid.num_tiles, B=batch, splits=kernels.splits, starts=starts,
            BOUNDS=kernels.bounds, **logits, **common,
        )  # fmt: skip
        select[(num_gts,)](
            gt_index, matched_iou, labels, claims, dynamic_k,
            scratch.top, scratch.slots, scratch.points, scratch.slot_of, scratch.tiles, scratch.gts, scratch.num_contested,
            scratch.contested, scratch.contested_cost, scratch.cheapest,
            k_scale=_float64_bits(config.k_scale), candidate_topk=config.candidate_topk, num_tiles=grid.num_tiles, B=batch,
            splits=kernels.splits, starts=starts, BOUNDS=kernels.bounds, **logits, **common,
        )  # fmt: skip
        resolve[(min(kernels.resolvers, len(scratch.contested)),)](
            gt_index, matched_iou, labels,
            scratch.slots, scratch.points, scratch.slot_of, scratch.gts, scratch.num_contested, scratch.contested,
            scratch.contested_cost, scratch.cheapest, gt_offsets_ptr=offsets,
            num_tiles=grid.num_tiles, B=batch, starts=starts, CONFLICT=config.conflict, GTS=kernels.gts, **logits, **common,
        )  # fmt: skip
    return Matching(gt_index, matched_iou, dynamic_k.view(gts.padded_shape or (-1,)), claims, labels)
