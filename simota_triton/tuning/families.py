"""The kernel families: for each backend that has launch parameters, which there are and which are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .kernel_config import INTERPRETER, KernelConfig, Shape, heuristic
from .stream_config import STREAM_INTERPRETER, StreamConfig, stream_heuristic

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
        stages: The values that tuning tries. Fields that act together are one stage, which is tried with the
            fields of the others held.
    """

    backend: str
    config: type[Any]
    heuristic: Callable[[tuple[int, int], Shape], Any]
    interpreter: Any
    stages: tuple[Axes, ...]

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
                    f"kernels: {name} is for backend {family.backend!r}, got backend {backend!r}; "
                    "leave one of the two out"
                )
            return family.backend
    expected = " or ".join(f"a {family.config.__name__}" for family in FAMILIES.values())
    raise TypeError(f"kernels: expected {expected} or None, got {type(kernels).__name__}")
