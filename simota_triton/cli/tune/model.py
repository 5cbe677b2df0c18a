"""What launch parameters cost, told from the machine code alone: compiled for a GPU that need not be here, in
processes of its own.

The model orders candidates, it does not predict times: the instructions that the warps of a launch issue,
over what a multiprocessor issues while as many programs are resident as its registers allow. Memory, caches
and the length of data-dependent loops are not in it.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from ...config import SimOTAConfig
from ...inputs import Problem, Scores
from ...tuning.kernel_config import PROCESSORS, known_capability
from .families import TUNABLE

REGISTERS, MAX_PROGRAMS = 65536, 32
"""Of a multiprocessor: 32-bit registers, and the most programs it holds (NVIDIA's CUDA programming guide,
compute capabilities).
"""

MAX_WARPS = {(8, 0): 64, (8, 6): 48, (8, 9): 48, (9, 0): 64, (10, 0): 64, (12, 0): 48}
"""Resident warps of a multiprocessor (the same tables)."""

SCHEDULERS, SATURATING_WARPS = 4, 16
"""Instructions a multiprocessor issues in a cycle, and the warps it takes: 4 a scheduler hide the latency of
arithmetic, 4 cycles.
"""

MAX_SPILLS = 0.05
"""Share of a kernel's instructions that may move registers to memory and back, outside its innermost
loops.
"""


@dataclass(frozen=True)
class Static:
    """What one choice of launch parameters needs.

    Attributes:
        registers: Of a thread, by kernel.
        spills: Share of a kernel's instructions that spill registers to memory, by kernel; 1 where an
            innermost loop does.
        cycles: Modelled cycles of all launches, None where it does not compile.
        code: Machine code and grid of every launch, as a key.
        error: Why it does not compile, or None.
    """

    registers: dict[str, int]
    spills: dict[str, float]
    cycles: float | None
    code: tuple[Any, ...] = ()
    error: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why it is not worth running, or None."""
        if self.error is not None:
            return self.error
        spilling = [name for name, share in self.spills.items() if share > MAX_SPILLS]
        return f"{', '.join(spilling)}: registers spill to memory" if spilling else None


def outline(problem: Problem) -> Problem:
    """The problem without its values: tensors of the same shapes, strides and types that hold no memory."""

    def hollow(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return Scores(tuple(map(hollow, value.levels))) if isinstance(value, Scores) else value

    gts = replace(problem.gts, **{name: hollow(value) for name, value in vars(problem.gts).items()})
    if (
        gts.max_count is None
    ):  # known to the device alone, where there is none; any number compiles the same code
        gts = replace(gts, max_count=max(1, gts.boxes.shape[0] // max(problem.shape[0], 1)))
    return replace(problem, **{name: hollow(value) for name, value in vars(problem).items()} | {"gts": gts})


def examine(
    backend: str,
    problem: Problem,
    config: SimOTAConfig,
    capability: tuple[int, int],
    candidates: Sequence[Any],
    workers: int = 2,
) -> Iterator[Static]:
    """The static report of each candidate, in their order; neighbours in the list share compilations.

    Args:
        backend: The family.
        problem: The batch; only its outline is looked at.
        config: The configuration.
        capability: Compute capability to compile for.
        candidates: Launch parameters.
        workers: Processes.
    """
    hollow = outline(problem)
    size = max(1, min(16, -(-len(candidates) // workers)))
    chunks = [candidates[i : i + size] for i in range(0, len(candidates), size)]
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(reader,))
    try:
        # workers begin with Ctrl-C blocked, which they keep: the parent alone answers to it, before their
        # first line of Python too
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            found = [pool.submit(_examine, backend, hollow, config, capability, chunk) for chunk in chunks]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for future in found:
            yield from future.result()
    finally:
        writer.close()
        pool.shutdown(cancel_futures=True)


def _start(reader: Connection) -> None:
    """In a worker, before Triton is imported: it must compile, not interpret, and end when the pipe does,
    whose other end the parent closes, or the system for it, however the parent ends.
    """
    os.environ.pop("TRITON_INTERPRET", None)

    def end() -> None:
        wait([reader])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


_SEEN: dict[int, tuple[Any, Any]] = {}
"""In a worker: binary -> its census; the binary is held, so that its id stays its own."""


def _examine(
    backend: str,
    problem: Problem,
    config: SimOTAConfig,
    capability: tuple[int, int],
    candidates: Sequence[Any],
) -> list[Static]:
    return [_examine_one(backend, problem, config, capability, candidate) for candidate in candidates]


def _examine_one(
    backend: str, problem: Problem, config: SimOTAConfig, capability: tuple[int, int], kernels: Any
) -> Static:
    from ...measure.compiling import compiled_for
    from ...measure.machine_code import census

    family = TUNABLE[backend]
    grids: list[tuple[int, ...]] = []
    try:
        with compiled_for(10 * capability[0] + capability[1], grids) as binaries:
            family.launch(problem, config, kernels)
    except Exception as error:  # whatever Triton and ptxas raise: the candidate is out, with the reason
        return Static(
            {},
            {},
            None,
            error=f"does not compile: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[-1]}",
        )
    registers: dict[str, int] = {}
    spills: dict[str, float] = {}
    code: list[Any] = []
    cycles = 0.0
    for binary, grid in zip(binaries, grids, strict=True):
        if id(binary) not in _SEEN:
            _SEEN[id(binary)] = (binary, census(binary))
        found = _SEEN[id(binary)][1]
        name, warps = binary.metadata.name, binary.metadata.num_warps
        code.append((hashlib.sha256(binary.asm["cubin"]).hexdigest(), grid))
        registers[name] = found.registers
        in_loop = any(loop.instructions["local"] for loop in found.innermost())
        spills[name] = (
            1.0 if in_loop else found.instructions["local"] / max(1, sum(found.instructions.values()))
        )
        cycles += launch_cycles(
            capability,
            math.prod(grid),
            warps,
            found.registers,
            family.instructions(name, found, problem, kernels),
        )
    return Static(registers, spills, cycles, tuple(code))


def launch_cycles(
    capability: tuple[int, int], programs: int, warps: int, registers: int, instructions: float
) -> float:
    """Modelled cycles of one launch.

    Args:
        capability: Compute capability.
        programs: Programs of the grid.
        warps: Warps of a program.
        registers: Registers of a thread.
        instructions: Instructions that a warp issues.
    """
    known = known_capability(capability)
    most = min(MAX_PROGRAMS, MAX_WARPS[known] // warps, REGISTERS // (32 * warps * -(-registers // 8) * 8))
    resident = max(1, min(most, -(-programs // PROCESSORS[known])))
    rate = SCHEDULERS * min(1.0, resident * warps / SATURATING_WARPS)
    waves = -(-programs // (PROCESSORS[known] * resident))
    return waves * resident * warps * instructions / rate
