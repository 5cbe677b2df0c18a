"""A static model of what launch parameters cost, from the machine code alone.

Candidates are compiled in processes of their own, for a GPU that need not be here. The modelled time of a
launch is

    instructions that all its warps issue / instructions that the GPU issues in a cycle,

where the latter depends on how many programs a multiprocessor's registers hold at once, and a last wave of
programs that does not fill the GPU counts as a whole one. The model orders candidates and does not predict
times: memory, caches and the length of data-dependent loops are not in it.
"""

from __future__ import annotations

import contextlib
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
from ...problem import Problem, map_tensors
from ...tuning.kernel_config import PROCESSORS, known_capability
from .families import TUNABLE

REGISTERS, MAX_PROGRAMS = 65536, 32
"""32-bit registers of a multiprocessor, and how many programs it holds at most (CUDA programming guide, table
of compute capabilities).
"""

MAX_WARPS = {(8, 0): 64, (8, 6): 48, (8, 9): 48, (9, 0): 64, (10, 0): 64, (12, 0): 48}
"""Compute capability -> how many warps a multiprocessor holds at most (the same table)."""

SCHEDULERS, SATURATING_WARPS = 4, 16
"""Instructions that a multiprocessor issues in a cycle, and the resident warps that this takes: 4 for each of
its 4 schedulers, because the result of an arithmetic instruction is there after 4 cycles.
"""

MAX_SPILLS = 0.05
"""The largest share of a kernel's instructions that may spill registers to memory or load them back. In an
innermost loop none may.
"""


@dataclass(frozen=True)
class Static:
    """The static report of one candidate.

    Attributes:
        registers: Kernel -> registers of a thread.
        spills: Kernel -> share of its instructions that move registers to memory and back; 1 where an
            innermost loop holds such an instruction.
        cycles: Modelled cycles of all launches, None where the candidate does not compile.
        code: Hash of the machine code, and grid, of every launch. Candidates with the same ``code`` do the
            same.
        error: Why the candidate does not compile, or None.
    """

    registers: dict[str, int]
    spills: dict[str, float]
    cycles: float | None
    code: tuple[Any, ...] = ()
    error: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why the candidate is not worth running, or None."""
        if self.error is not None:
            return self.error
        spilling = [name for name, share in self.spills.items() if share > MAX_SPILLS]
        return f"{', '.join(spilling)}: registers spill to memory" if spilling else None


def outline(problem: Problem) -> Problem:
    """The problem with tensors of the same shapes, strides and dtypes that hold no memory."""

    def hollow(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    outlined: Problem = map_tensors(hollow, problem)
    gts = outlined.gts
    if (
        gts.max_count is None
    ):  # known to the device alone, and there is none: any number compiles the same code
        gts = replace(gts, max_count=max(1, gts.boxes.shape[0] // max(problem.shape[0], 1)))
    return replace(outlined, gts=gts)


def examine(
    backend: str,
    problem: Problem,
    config: SimOTAConfig,
    capability: tuple[int, int],
    candidates: Sequence[Any],
    workers: int = 2,
) -> Iterator[Static]:
    """The static report of each candidate, in the order of the candidates.

    A process takes neighbours in the list, which share many of their compilations.

    Args:
        backend: The family's backend.
        problem: The batch; only its outline is looked at.
        config: The configuration.
        capability: Compute capability to compile for.
        candidates: Launch parameters.
        workers: Number of processes.
    """
    hollow = outline(problem)
    size = max(1, min(16, -(-len(candidates) // workers)))
    chunks = [candidates[i : i + size] for i in range(0, len(candidates), size)]
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(reader,))
    try:
        with _interrupts_wait():
            found = [pool.submit(_examine, backend, hollow, config, capability, chunk) for chunk in chunks]
        for future in found:
            yield from future.result()
    finally:
        writer.close()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Within the block, Ctrl-C waits for its end, and processes that are started never hear of it.

    They inherit that the signal is blocked, from their first instruction on: only the parent answers to it.
    The parent needs a handler too, because blocking it here leaves it to other threads of the process, as
    those of PyTorch: Python would then end the block in the middle of starting a worker.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # the interrupt is the main thread's
        return
    heard: list[int] = []
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _start(reader: Connection) -> None:
    """Prepare a worker, before it imports Triton.

    Triton must compile there, not interpret. And the worker must not outlive its parent: it ends when the
    other end of the pipe is closed, by the parent or, however the parent ends, by the system.
    """
    os.environ.pop("TRITON_INTERPRET", None)

    def end() -> None:
        wait([reader])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


_SEEN: dict[int, tuple[Any, Any]] = {}
"""In a worker: id of a binary -> the binary and its census. It is held, so that no other gets its id."""


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
    except Exception as error:  # whatever Triton and ptxas raise
        message = (str(error).strip() or "no message").splitlines()[-1]
        return Static({}, {}, None, error=f"does not compile: {type(error).__name__}: {message}")
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
        share = found.instructions["local"] / max(1, sum(found.instructions.values()))
        spills[name] = 1.0 if in_loop else share
        instructions = family.instructions(name, found, problem, config, kernels)
        cycles += launch_cycles(capability, math.prod(grid), warps, found.registers, instructions)
    return Static(registers, spills, cycles, tuple(code))


def launch_cycles(
    capability: tuple[int, int], programs: int, warps: int, registers: int, instructions: float
) -> float:
    """Modelled cycles of one launch.

    Args:
        capability: Compute capability; an unknown one counts as the nearest known below.
        programs: Programs of the grid.
        warps: Warps of a program.
        registers: Registers of a thread.
        instructions: Instructions that a warp issues.
    """
    known = known_capability(capability)
    registers_of_program = 32 * warps * 8 * -(-registers // 8)  # a thread gets them in eights
    most = min(MAX_PROGRAMS, MAX_WARPS[known] // warps, REGISTERS // registers_of_program)
    resident = max(1, min(most, -(-programs // PROCESSORS[known])))
    rate = SCHEDULERS * min(1.0, resident * warps / SATURATING_WARPS)
    waves = -(-programs // (PROCESSORS[known] * resident))
    return waves * resident * warps * instructions / rate
