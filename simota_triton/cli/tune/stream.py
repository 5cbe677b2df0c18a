"""The streaming kernels as tuning sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...tuning.kernel_config import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from ...config import SimOTAConfig
    from ...inputs import Problem
    from ...measure.machine_code import Census

VISITS = 16
"""Tiles of 64 priors that a gt looks at: 5 to 51 in simulated scenes."""


def shape(problem: Problem) -> Shape:
    """B, P and the gts of the whole batch."""
    batch, num_priors, _ = problem.shape
    return Shape(batch, num_priors, problem.gts.boxes.shape[0])


def launch(problem: Problem, config: SimOTAConfig, kernels: Any) -> Sequence[Tensor]:
    """All kernels: the matching and the labels."""
    from ...kernels.stream import launch as stream

    matching, labels = stream.run(problem, config, kernels)
    return *matching, labels


def instructions(kernel: str, census: Census, problem: Problem, kernels: Any) -> float:
    """Instructions that a warp of a kernel issues, estimated; how many tiles a gt looks at is a guess, the
    same for all choices.

    Tiles smaller than ``VISITS`` speaks of are looked at as often as their area asks for.
    """
    from ...kernels.constants import COLUMNS

    batch, num_priors, num_classes = problem.shape
    gts = problem.gts.boxes.shape[0] / max(batch, 1)
    visits = max(1.0, VISITS * 64 / kernels.tile)
    if kernel == "survey":  # programs of two kinds
        of_gts, of_sums = gts * kernels.splits, num_priors / kernels.rows
        searches = visits / kernels.splits + num_priors / kernels.tile / kernels.splits / kernels.iou_bounds
        total: float = 0.0
        for loop in census.loops:
            programs, turns = (
                (of_gts, searches) if loop.inner else (of_sums, math.ceil(num_classes / int(COLUMNS.value)))
            )
            total += programs * (loop.around.total() + turns * loop.whole.total())
        mean: float = total / (of_gts + (of_sums if len(census.loops) > 1 else 0))
        return mean
    turns = {
        "prepare": math.ceil(gts / kernels.gts),
        "select": visits + num_priors / kernels.tile / kernels.bounds,
        "resolve": math.ceil(gts / kernels.gts),
        "rescue": visits + num_priors / kernels.tile / kernels.bounds,
    }[kernel]
    loops: float = turns * sum(loop.total for loop in census.innermost())
    return census.straight + loops
