"""The kernels of backend ``"triton-stream"``: their shape, their launch, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...tuning.kernel_config import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from ...config import SimOTAConfig
    from ...measure.machine_code import Census
    from ...problem import Problem

VISITS = 16
"""How many tiles of 64 priors a gt is taken to visit. In simulated scenes it visits 5 to 51."""


def shape(problem: Problem) -> Shape:
    """B, P, and the number of gts of the whole batch."""
    batch, num_priors, _ = problem.shape
    return Shape(batch, num_priors, problem.gts.boxes.shape[0])


def launch(problem: Problem, config: SimOTAConfig, kernels: Any) -> Sequence[Tensor]:
    """Launch all kernels, which write the matching and the labels."""
    from ...kernels.stream import launch as stream

    matching = stream.run(problem, config, kernels)
    return [value for value in matching if value is not None]


def instructions(kernel: str, census: Census, problem: Problem, config: SimOTAConfig, kernels: Any) -> float:
    """An estimate of the instructions that a warp of a kernel issues.

    How many tiles a gt visits depends on the data. For all candidates it is guessed that they cover the area
    of ``VISITS`` tiles of 64 priors: with smaller tiles more of them are visited.
    """
    from ...kernels.constants import COLUMNS
    from ...kernels.host import Logits

    batch, num_priors, num_classes = problem.shape
    rows, bounds = kernels.sum_rows(Logits.of(problem).layout.layout), kernels.select_bounds(config)
    gts = problem.gts.boxes.shape[0] / max(batch, 1)
    visits = max(1.0, VISITS * 64 / kernels.tile)
    if kernel == "sums_and_ious":  # programs of two kinds
        of_gts, of_sums = gts * kernels.splits, num_priors / rows
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
        "select": visits + num_priors / kernels.tile / bounds,
        "resolve": math.ceil(gts / kernels.gts),
        "rescue": visits + num_priors / kernels.tile / bounds,
    }[kernel]
    loops: float = turns * sum(loop.total for loop in census.innermost())
    return census.straight + loops
