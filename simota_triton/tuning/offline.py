"""Compiles the Triton kernels for a GPU that is not there, and reads their machine code.

Triton is handed a driver that names a target and nothing else, and every launch stops after compilation. So what is
compiled is what the package's own launches ask for, argument by argument. ptxas, cuobjdump and nvdisasm come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

CLASSES = {
    "fp32": r"FADD|FMUL|FFMA|FMNMX|FSETP|FSEL|FSET|FCHK",
    "mufu": r"MUFU",
    "load": r"LDG|LD\b|LDC|ULDC|LDCU",
    "store": r"STG|ST\b",
    "shared": r"LDS|STS|LDSM|STSM|SHFL|BAR|REDUX",
    "local": r"LDL|STL",
    "control": r"BRA|BSSY|BSYNC|EXIT|WARPSYNC|CALL|RET|YIELD|NOP|VOTE|PLOP3",
    "uniform": r"U[A-Z]|R2UR|S2UR",
}
"""Classes of instructions; what is none of these is counted as integer."""


class _Target:
    """A driver that only knows what to compile for."""

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
    """Collects the binaries that launches in its block compile for, say, 90 (sm_90), and their grids; nothing runs.

    For a process of its own, where Triton was imported without TRITON_INTERPRET: Triton launches nothing there afterwards.
    """
    binaries: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        binaries.append(run(self, *args, grid=grid, warmup=True, **kwargs))
        if grids is not None:
            grids.append(grid)
        return binaries[-1]

    driver.set_active(_Target(capability))
    JITFunction.run = compile_only
    try:
        yield binaries
    finally:
        JITFunction.run = run


@dataclass(frozen=True)
class Loop:
    """An innermost loop: instructions of an iteration by class, over all its paths."""

    instructions: Counter[str]

    @property
    def total(self) -> int:
        return sum(self.instructions.values())


@dataclass(frozen=True)
class Census:
    """What a binary needs and does."""

    registers: int
    local_bytes: int
    shared_bytes: int
    instructions: Counter[str]
    loops: tuple[Loop, ...]

    @property
    def straight(self) -> int:
        """Instructions outside the innermost loops."""
        return sum(self.instructions.values()) - sum(loop.total for loop in self.loops)


def census(binary: Any) -> Census:
    """Reads a binary of :func:`compiled_for`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        code = _tool("nvdisasm", "-c", file.name)
        usage = _tool("cuobjdump", "-res-usage", file.name)
    numbers = re.search(r"REG:(\d+) STACK:\d+ SHARED:\d+ LOCAL:(\d+)", usage)
    assert numbers, usage
    lines = re.findall(r"^\s*(?:(\.L_\S+):|/\*[0-9a-f]{4,}\*/\s+(.*?);)", code, re.MULTILINE)  # (label, instruction)
    at = {label: i for i, (label, _) in enumerate(lines) if label}
    spans = []
    for i, (_, instruction) in enumerate(lines):
        target = re.search(r"\bBRA\b.*?(\.L_\w+)", instruction)
        if target and at[target[1]] < i - 1:
            spans.append((at[target[1]], i))
    innermost = [span for span in spans if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in spans)]
    return Census(
        registers=int(numbers[1]),
        local_bytes=int(numbers[2]),
        shared_bytes=binary.metadata.shared,
        instructions=_count(lines),
        loops=tuple(Loop(_count(lines[first : last + 1])) for first, last in innermost),
    )


def _count(lines: list[tuple[str, str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _, instruction in lines:
        name = re.sub(r"^@!?U?P\w+\s+", "", instruction).split(" ")[0]
        if name:
            counts[next((c for c, names in CLASSES.items() if re.match(names, name)), "integer")] += 1
    return counts


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(TOOLS / name), *args], capture_output=True, text=True, check=True).stdout
