"""Compiles the Triton kernels for a GPU that is not in this machine.

Triton is given a driver that only names a target, and every launch stops after its compilation. So the
binaries are those that the package's own launches ask for, argument by argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Target:
    """A driver for Triton that only knows what to compile for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiled_for(capability: int, grids: list[tuple[int, ...]] | None = None) -> Iterator[list[Any]]:
    """In the block of this context manager every launch compiles and ends: nothing runs.

    Use it in a process of its own, because Triton launches nothing in this process afterwards. Triton must
    have been imported without TRITON_INTERPRET.

    Args:
        capability: What to compile for; 90 stands for sm_90.
        grids: A list that the grid of each launch is appended to.

    Yields:
        A list that the binary of each launch is appended to.
    """
    binaries: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        binaries.append(run(self, *args, grid=grid, warmup=True, **kwargs))
        if grids is not None:
            grids.append(grid)
        return binaries[-1]

    driver.set_active(Target(capability))
    JITFunction.run = compile_only
    try:
        yield binaries
    finally:
        JITFunction.run = run
