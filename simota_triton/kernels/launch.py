"""The host side of the kernels: their arguments, grids and the device they run on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..checks import fail
from ..config import SimOTAConfig
from ..inputs import Problem, Scores
from ..matching import Matching
from ..tuning.kernel_config import KernelConfig
from . import constants as const
from .cost_pass import cost_pass
from .prior_pass import prior_pass
from .rescue_pass import rescue_pass
from .rule import Rule

INTERPRETED = not isinstance(cost_pass, triton.JITFunction)
"""Whether TRITON_INTERPRET=1 was set when Triton was imported: kernels then run on CPU tensors, slowly."""

FAST = not INTERPRETED
"""Whether kernels use the GPU's approximate units, which the interpreter does not have; see ``maths``."""

OPTIONS: dict[str, Any] = {} if INTERPRETED else {"enable_fp_fusion": False, "num_stages": 1}
"""Compiler options. Without fusion a kernel's rounding is what its source says, under every version of
Triton.
"""


MOST_PROGRAMS = 65_535
"""Programs along the second and third axis of a grid; the first takes 2^31 - 1."""


def codes(values: Iterable[int]) -> tuple[int, ...]:
    """Integers as a tuple argument that is never specialised; ``levels.decode`` undoes it.

    Triton compiles a kernel again for an integer that is 1 or a multiple of 16, inside tuples even where
    ``do_not_specialize`` names the argument. Odd numbers from 3 are neither.
    """
    return tuple(2 * value + 3 for value in values)


class Layout(NamedTuple):
    """Where the class logits of a batch lie, as far as kernels are told.

    Attributes:
        sizes: Priors of each level.
        starts: First prior of each level, then P.
        layout: See ``levels.find_logits``.
        aligned: Every start and P is a multiple of 4.
        aligned_logits: Strides, pointers and C allow loads of 4 class logits.
        strides: Coded strides of images, priors and classes, a tuple over the levels each.
    """

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    layout: str
    aligned: bool
    aligned_logits: bool
    strides: tuple[tuple[int, ...], ...]


@functools.lru_cache(maxsize=1024)
def _layout(
    shapes: tuple[tuple[int, ...], ...], strides: tuple[tuple[int, ...], ...], aligned_pointers: bool
) -> Layout:
    sizes, channels = tuple(shape[1] for shape in shapes), shapes[0][2]
    if all(stride[1] == 1 or size == 1 for stride, size in zip(strides, sizes, strict=True)):
        layout = "priors"
    elif channels == 1 or all(stride[2] == 1 for stride in strides):
        layout = "classes"
    else:
        layout = "any"
    starts = tuple(accumulate(sizes, initial=0))
    read = [
        stride[dim]
        for stride in strides
        for dim in (0, 1, 2)
        if (layout, dim) not in (("priors", 1), ("classes", 2))
    ]
    return Layout(
        sizes=sizes,
        starts=starts,
        layout=layout,
        aligned=not any(start % 4 for start in starts),
        aligned_logits=aligned_pointers and not any(value % 4 for value in (*read, channels)),
        strides=tuple(codes(stride[dim] for stride in strides) for dim in (0, 1, 2)),
    )


@dataclass(frozen=True)
class Levels:
    """Class logits (and objectness) as kernel arguments.

    Attributes:
        cls: One [B, P_l, C] view a level.
        obj: One [B, P_l, 1] view a level, or None.
        layout: Where ``cls`` lies.
    """

    cls: tuple[Tensor, ...]
    obj: tuple[Tensor, ...] | None
    layout: Layout

    @classmethod
    def of(cls, problem: Problem) -> Levels:
        """The levels of a problem with at least one prior; read in place but for float64, which kernels do
        not take.
        """
        levels = tuple(readable(level) for level in problem.cls_logits.levels if level.shape[1])
        layout = _layout(
            tuple(tuple(level.shape) for level in levels),
            tuple(level.stride() for level in levels),
            not any(level.data_ptr() % (4 * level.element_size()) for level in levels),
        )
        return cls(
            levels, None if problem.obj_logits is None else _like(problem.obj_logits, layout.sizes), layout
        )

    def obj_strides(self, dim: int) -> tuple[int, ...] | None:
        """Coded strides of the objectness logits."""
        return None if self.obj is None else codes(level.stride(dim) for level in self.obj)

    def tiles(self, size: int) -> int:
        """Tiles of ``size`` priors that cover all levels, none of which straddles two."""
        return sum(-(-level // size) for level in self.layout.sizes)


class Shared(NamedTuple):
    """What both passes read, and the arguments they take under one name."""

    levels: Levels
    boxes: Tensor
    priors: Tensor
    keywords: dict[str, Any]

    @classmethod
    def of(cls, problem: Problem, config: SimOTAConfig) -> Shared:
        """The arguments of a problem with at least one prior."""
        levels = Levels.of(problem)
        layout = levels.layout
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
            "FAST": FAST,
            **OPTIONS,
        }
        return cls(levels, boxes, problem.priors.contiguous(), keywords)


def readable(value: Tensor) -> Tensor:
    """The value in a dtype that kernels take."""
    return value.float() if value.dtype == torch.float64 else value


def _like(scores: Scores, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Objectness in the levels of the class logits: views, unless it came in other levels."""
    levels = tuple(readable(level) for level in scores.levels if level.shape[1])
    if tuple(level.shape[1] for level in levels) == sizes:
        return levels
    return tuple(readable(scores.dense()).split(list(sizes), dim=1))


class Rows(NamedTuple):
    """What ``prior_pass`` hands to ``cost_pass``.

    Attributes:
        background: [B, P] float32, see there.
        objectness: [B, P] float32, or None.
        gt_table: [N, TABLE_COLUMNS] float32, see ``gts``.
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
    shared = Shared.of(problem, config)
    return run_cost_pass(problem, run_prior_pass(problem, kernels, shared), kernels, num_gts, shared)


def run_prior_pass(problem: Problem, kernels: KernelConfig, shared: Shared) -> Rows:
    """The first pass."""
    batch, num_priors, channels = problem.shape
    gts, device = problem.gts, problem.priors.device
    levels = shared.levels
    rows = Rows(
        background=torch.empty((batch, num_priors), dtype=torch.float32, device=device),
        objectness=None
        if levels.obj is None
        else torch.empty((batch, num_priors), dtype=torch.float32, device=device),
        gt_table=torch.empty(
            (gts.boxes.shape[0], const.TABLE_COLUMNS.value), dtype=torch.float32, device=device
        ),
    )
    limit = {} if INTERPRETED else {"maxnreg": kernels.prior_registers}
    mask_strides = (0, 0) if problem.candidate_mask is None else problem.candidate_mask.stride()
    num_tiles = levels.tiles(kernels.rows)
    with on_device(device):
        prior_pass[(batch * num_tiles,)](
            *rows,
            shared.boxes, shared.priors, problem.candidate_mask, levels.cls, levels.obj,
            *(value.contiguous() for value in (gts.boxes, gts.centers, gts.labels, gts.offsets)),
            None if gts.mask is None else gts.mask.contiguous(),
            C=codes([channels])[0], num_tiles=num_tiles,
            obj_strides_b=levels.obj_strides(0), obj_strides_p=levels.obj_strides(1),
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
        shared.levels.tiles(kernels.tile),
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
            rows.background, rows.objectness, shared.boxes, shared.priors, shared.levels.cls,
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
                G=num_gts, P=num_priors, min_positives=config.min_positives, RULE=Rule.of(config), BLOCK=1024, num_warps=4, **OPTIONS,
            )  # fmt: skip


@contextlib.contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Triton launches on the current device; the interpreter computes in NumPy, whose warnings a GPU does not
    have.
    """
    if INTERPRETED:
        import numpy as np

        with np.errstate(all="ignore"):
            yield
    elif device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            yield
    else:
        yield
