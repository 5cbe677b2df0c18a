"""The kernels of backend ``"triton"``: their shape, their launch, and what they cost."""

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


def shape(problem: Problem) -> Shape:
    """B, P, and the rows that the matrices have for each image."""
    batch, num_priors, _ = problem.shape
    most = problem.gts.max_count
    return Shape(batch, num_priors, problem.gts.padded_rows()[0].shape[1] if most is None else most)


def launch(problem: Problem, config: SimOTAConfig, kernels: Any) -> Sequence[Tensor]:
    """Launch both passes, which write cost and IoU of all pairs."""
    from ...kernels.fused import launch as fused

    return fused.run(problem, config, kernels, shape(problem).num_gts)


def instructions(kernel: str, census: Census, problem: Problem, config: SimOTAConfig, kernels: Any) -> float:
    """An estimate of the instructions that a warp of a pass issues: those outside of loops once, those inside
    as often as there are gts or classes to loop over.
    """
    from ...kernels.constants import COLUMNS, GTS

    batch, _, num_classes = problem.shape
    straight = census.straight
    if kernel == "cost_pass":
        pairs = sum(loop.total for loop in census.innermost() if loop.instructions["mufu"])
        gts_of_program: int = min(kernels.gts_per_program, shape(problem).num_gts)
        return straight + pairs * gts_of_program
    regions, *classes = (loop.total for loop in census.innermost())
    gts = problem.gts.boxes.shape[0] / max(batch, 1)
    return (
        straight
        + regions * math.ceil(gts / int(GTS.value))
        + sum(classes[:1]) * math.ceil(num_classes / int(COLUMNS.value))
    )
