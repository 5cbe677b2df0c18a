"""The kernel families: for each backend that has launch parameters, everything that tuning needs to know. One
entry each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from . import fused, stream
from .kernel_config import INTERPRETER, KernelConfig, Shape, heuristic
from .stream_config import STREAM_INTERPRETER, StreamConfig, stream_heuristic

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import SimOTAConfig
    from ..inputs import Problem
    from .offline import Census

Axes = Mapping[str, tuple[int, ...]]
"""Field -> the values that are tried."""


@dataclass(frozen=True)
class Family:
    """The kernels of one backend.

    Attributes:
        backend: Its name.
        config: Its frozen dataclass of launch parameters, all of them integers.
        heuristic: (compute capability, shape) -> launch parameters.
        interpreter: The launch parameters in Triton's interpreter.
        shape: What ``heuristic`` is given for a problem.
        stages: Fields that act together, in order: each stage is swept with the fields of the others held.
        launch: (problem, configuration, launch parameters) -> outputs, which are the same bits for all launch
            parameters.
        instructions: (kernel, its census, problem, launch parameters) -> instructions that a warp issues,
            estimated.
    """

    backend: str
    config: type[Any]
    heuristic: Callable[[tuple[int, int], Shape], Any]
    interpreter: Any
    shape: Callable[[Problem], Shape]
    stages: tuple[Axes, ...]
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

    def read(self, values: object) -> Any:
        """Launch parameters from a file, which must lie within what is tried when tuning.

        Raises:
            ValueError: They are not; the message names the field.
        """
        names = [field.name for field in fields(self.config)]
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError(f"config: expected the fields {', '.join(names)}, got {values!r}")
        for name, tried in self._tried():
            value = values[name]
            if type(value) is not int or not min(tried) <= value <= max(tried):
                raise ValueError(
                    f"{name}: expected an integer from {min(tried)} to {max(tried)}, got {value!r}"
                )
        return self.config(**values)

    def _tried(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for axes in self.stages:
            yield from axes.items()


FAMILIES = {
    family.backend: family
    for family in (
        Family(
            backend="triton",
            config=KernelConfig,
            heuristic=heuristic,
            interpreter=INTERPRETER,
            shape=fused.shape,
            stages=(
                {
                    "rows": (8, 16, 32, 64, 128),
                    "prior_warps": (1, 2, 4),
                    "prior_registers": (64, 96, 136, 255),
                },
                {
                    "tile": (64, 128, 256, 512, 1024),
                    "cost_warps": (1, 2, 4, 8),
                    "gts_per_program": (4, 8, 16, 32, 64, 128, 256, 512, 1 << 14),
                },
            ),
            launch=fused.launch,
            instructions=fused.instructions,
        ),
        Family(
            backend="triton-stream",
            config=StreamConfig,
            heuristic=stream_heuristic,
            interpreter=STREAM_INTERPRETER,
            shape=stream.shape,
            stages=(
                # a tile's priors decide how many tiles there are for these to look at: one that is tried with
                # what suits another loses
                {
                    "tile": (32, 64, 128),
                    "bounds": (32, 64, 128, 256, 512),
                    "iou_bounds": (32, 64, 128, 256),
                    "splits": (1, 2, 4, 8),
                },
                {"rows": (8, 16, 32)},
                {"gts": (32, 64, 128, 256, 512), "resolvers": (64, 256, 512, 1024, 2048, 4096)},
            ),
            launch=stream.launch,
            instructions=stream.instructions,
        ),
    )
}
"""Backend -> its family."""


def backend_of(kernels: object, backend: str) -> str:
    """The backend that launch parameters are for, which must be the one asked for unless that is "auto".

    Raises:
        TypeError: They are no family's.
        ValueError: They are another backend's.
    """
    for family in FAMILIES.values():
        if isinstance(kernels, family.config):
            if backend not in ("auto", family.backend):
                name = family.config.__name__
                raise ValueError(
                    f"kernels: {name} is for backend {family.backend!r}, got backend {backend!r}; leave one of the two out"
                )
            return family.backend
    expected = " or ".join(f"a {family.config.__name__}" for family in FAMILIES.values())
    raise TypeError(f"kernels: expected {expected} or None, got {type(kernels).__name__}")
