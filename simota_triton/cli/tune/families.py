"""The kernel families with what tuning needs besides their launch parameters: how a problem is launched with
them, and how many instructions that takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...config import SimOTAConfig
from ...problem import Problem
from ...tuning.families import FAMILIES, Family
from ...tuning.kernel_config import Shape
from . import fused, stream

if TYPE_CHECKING:  # its import needs Triton
    from ...measure.machine_code import Census


@dataclass(frozen=True)
class Tunable(Family):
    """A kernel family that can be launched and judged by its machine code.

    Attributes:
        shape: (problem) -> the shape that ``heuristic`` chooses launch parameters by.
        launch: (problem, configuration, launch parameters) -> the outputs, which have the same bits for all
            launch parameters.
        instructions: (name of a kernel, its census, problem, configuration, launch parameters) -> an estimate
            of the instructions that one warp of the kernel issues.
    """

    shape: Callable[[Problem], Shape]
    launch: Callable[[Problem, Any, Any], Sequence[Tensor]]
    instructions: Callable[[str, Census, Problem, SimOTAConfig, Any], float]

    def stage(self, index: int, base: Any) -> list[Any]:
        """``base``, then ``base`` with every other valid combination of values of this stage's fields."""
        axes = self.stages[index]
        found = [base]
        for values in itertools.product(*axes.values()):
            try:
                candidate = replace(base, **dict(zip(axes, values, strict=True)))
            except ValueError:  # fields that do not go together
                continue
            if candidate != base:
                found.append(candidate)
        return found

    def stage_of(self, candidate: Any, base: Any) -> int:
        """The index of the first stage in whose fields ``candidate`` differs from ``base``."""
        differs = (
            any(getattr(candidate, name) != getattr(base, name) for name in axes) for axes in self.stages
        )
        return next((index for index, one in enumerate(differs) if one), 0)

    def space(self, base: Any) -> list[Any]:
        """All candidates: ``base``, then those of each stage around ``base``."""
        return list(
            dict.fromkeys(itertools.chain.from_iterable(self.stage(i, base) for i in range(len(self.stages))))
        )


TUNABLE = {
    backend: Tunable(
        **vars(FAMILIES[backend]), shape=module.shape, launch=module.launch, instructions=module.instructions
    )
    for backend, module in (("triton", fused), ("triton-stream", stream))
}
"""Backend -> its family."""
