"""The kernel families as tuning sees them: which launch parameters there are to try, how a problem is launched
with them, and what that costs by its machine code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...config import SimOTAConfig
from ...inputs import Problem
from ...tuning.families import FAMILIES, Family
from ...tuning.kernel_config import Shape
from . import fused, stream

if TYPE_CHECKING:  # its import needs Triton
    from ...measure.machine_code import Census


@dataclass(frozen=True)
class Tunable(Family):
    """A kernel family that can be launched.

    Attributes:
        shape: What ``heuristic`` is given for a problem.
        launch: (problem, configuration, launch parameters) -> outputs, which are the same bits for all launch
            parameters.
        instructions: (kernel, its census, problem, launch parameters) -> instructions that a warp issues,
            estimated.
    """

    shape: Callable[[Problem], Shape]
    launch: Callable[[Problem, SimOTAConfig, Any], Sequence[Tensor]]
    instructions: Callable[[str, Census, Problem, Any], float]

    def stage(self, index: int, base: Any) -> list[Any]:
        """``base``, then every other valid choice of a stage's fields."""
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
        """The first stage whose fields differ from ``base``."""
        differs = (
            any(getattr(candidate, name) != getattr(base, name) for name in axes) for axes in self.stages
        )
        return next((index for index, one in enumerate(differs) if one), 0)

    def space(self, base: Any) -> list[Any]:
        """``base``, then every choice of every stage around it."""
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
