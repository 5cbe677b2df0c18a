"""The kernel families: for each backend with kernels, its launch parameters and the values that are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .kernel_config import INTERPRETER, KernelConfig, Shape, heuristic
from .stream_config import STREAM_INTERPRETER, StreamConfig, stream_heuristic

Axes = Mapping[str, tuple[int, ...]]
"""Field of launch parameters -> the values that tuning tries."""


@dataclass(frozen=True)
class Family:
    """The kernels of one backend.

    Attributes:
        backend: The backend's name.
        config: The frozen dataclass of its launch parameters, all of them integers.
        heuristic: (compute capability, shape) -> the launch parameters that are taken where none are
            measured.
        interpreter: The launch parameters in Triton's interpreter.
        stages: The values that tuning tries. Fields that depend on each other form a stage: tuning tries all
            combinations of a stage's values, while the fields of the other stages keep the heuristic's.
    """

    backend: str
    config: type[Any]
    heuristic: Callable[[tuple[int, int], Shape], Any]
    interpreter: Any
    stages: tuple[Axes, ...]

    def read(self, values: object) -> Any:
        """Launch parameters from a file's values, which must lie within the range that tuning tries.

        Raises:
            ValueError: A field is missing, unknown or out of range; the message names it.
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
        ),
        Family(
            backend="triton-stream",
            config=StreamConfig,
            heuristic=stream_heuristic,
            interpreter=STREAM_INTERPRETER,
            stages=(
                # The number of priors in a tile decides how many tiles there are, and with that which values
                # of the others are good: a value of "tile" that is tried alone loses.
                {
                    "tile": (32, 64, 128),
                    "bounds": (32, 64, 128, 256, 512),
                    "iou_bounds": (32, 64, 128, 256),
                    "splits": (1, 2, 4, 8),
                },
                {"rows": (8, 16, 32)},
                {"gts": (32, 64, 128, 256, 512), "resolvers": (64, 256, 512, 1024, 2048, 4096)},
            ),
        ),
    )
}
"""Backend -> its kernel family."""


def backend_of(kernels: object, backend: str) -> str:
    """The backend that the launch parameters ``kernels`` belong to. It must be the backend that was asked
    for, unless that is "auto".

    Raises:
        TypeError: ``kernels`` are no launch parameters.
        ValueError: They belong to another backend.
    """
    for family in FAMILIES.values():
        if isinstance(kernels, family.config):
            if backend not in ("auto", family.backend):
                name = family.config.__name__
                raise ValueError(
                    f"kernels: {name} is for backend {family.backend!r}, got backend {backend!r}; "
                    "leave one of the two out"
                )
            return family.backend
    expected = " or ".join(f"a {family.config.__name__}" for family in FAMILIES.values())
    raise TypeError(f"kernels: expected {expected} or None, got {type(kernels).__name__}")
