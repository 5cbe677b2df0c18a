"""What both families need to launch: whether kernels are compiled or interpreted, how arguments are passed,
and where a batch's logits lie.
"""

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

from ..problem import Problem, Scores
from . import maths

INTERPRETED = not isinstance(maths.reciprocal, triton.JITFunction)
"""Whether TRITON_INTERPRET=1 was set when Triton was imported: kernels then run on CPU tensors, slowly."""

FAST = not INTERPRETED
"""Whether kernels use the GPU's approximate units, which the interpreter does not have; see ``maths``."""

OPTIONS: dict[str, Any] = {} if INTERPRETED else {"enable_fp_fusion": False, "num_stages": 1}
"""Compiler options. Without fusion a kernel's rounding is what its source says, under every version of
Triton.
"""


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
class Logits:
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
    def of(cls, problem: Problem) -> Logits:
        """The logits of a problem with at least one prior; read in place but for float64, which kernels do
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


def readable(value: Tensor) -> Tensor:
    """The value in a dtype that kernels take."""
    return value.float() if value.dtype == torch.float64 else value


def _like(scores: Scores, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Objectness in the levels of the class logits: views, unless it came in other levels."""
    levels = tuple(readable(level) for level in scores.levels if level.shape[1])
    if tuple(level.shape[1] for level in levels) == sizes:
        return levels
    return tuple(readable(scores.dense()).split(list(sizes), dim=1))


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
