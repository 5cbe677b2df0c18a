"""Reads the machine code of compiled kernels: registers, spills, instructions by class, loops.

The tools that disassemble it, nvdisasm and cuobjdump, come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

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
"""Class of instructions -> pattern of their names. All others count as class ``"integer"``."""


@dataclass(frozen=True)
class Loop:
    """A loop of the machine code.

    Attributes:
        instructions: Class -> instructions of the loop's body, on all its paths, without those of inner
            loops.
        shortest: Number of instructions on the shortest path through the body.
        inner: The loops directly inside this one, in the order of their addresses.
        around: Class -> instructions outside of all loops, on the paths that lead through this loop.
    """

    instructions: Counter[str]
    shortest: int
    inner: tuple[Loop, ...]
    around: Counter[str]

    @property
    def total(self) -> int:
        return sum(self.instructions.values())

    @property
    def whole(self) -> Counter[str]:
        """Class -> instructions of the body, those of inner loops counted once."""
        return sum((inner.whole for inner in self.inner), Counter(self.instructions))


@dataclass(frozen=True)
class Census:
    """What a binary needs and does.

    Attributes:
        registers: Registers of a thread.
        local_bytes: Stack and local memory of a thread, where spilled registers go.
        shared_bytes: Shared memory of a program.
        instructions: Class -> all instructions.
        once: Class -> instructions outside of loops.
        loops: The outermost loops, in the order of their addresses.
    """

    registers: int
    local_bytes: int
    shared_bytes: int
    instructions: Counter[str]
    once: Counter[str]
    loops: tuple[Loop, ...]

    @property
    def straight(self) -> int:
        """Number of instructions outside of the innermost loops."""
        return sum(self.instructions.values()) - sum(loop.total for loop in self.innermost())

    def every_loop(self) -> Iterator[Loop]:
        """All loops, each before those inside it."""
        waiting = list(self.loops)
        while waiting:
            loop = waiting.pop(0)
            waiting[:0] = loop.inner
            yield loop

    def innermost(self) -> Iterator[Loop]:
        """The loops that have no loop inside."""
        return (loop for loop in self.every_loop() if not loop.inner)


def census(binary: Any) -> Census:
    """The census of a binary of :func:`.compiling.compiled_for`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        code = _tool("nvdisasm", "-c", file.name)
        usage = _tool("cuobjdump", "-res-usage", file.name)
    numbers = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert numbers, usage
    # pairs (label, instruction), one of the two empty
    lines = re.findall(r"^\s*(?:(\.L_\S+):|/\*[0-9a-f]{4,}\*/\s+(.*?);)", code, re.MULTILINE)
    flow = Flow(lines)
    loops = flow.loops()
    return Census(
        registers=int(numbers[1]),
        local_bytes=int(numbers[2]) + int(numbers[3]),
        shared_bytes=binary.metadata.shared,
        instructions=_count(instruction for _, instruction in lines),
        once=_count(flow.reached()) - sum((loop.whole for loop in loops), Counter()),
        loops=loops,
    )


class Flow:
    """The control flow graph of a function: its basic blocks, and for each the blocks that may follow.

    ``BRA.DIV`` is no edge of it: it leads to code behind the function's end that is only for warps whose
    lanes have diverged.
    """

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self.blocks: list[list[str]] = [[]]
        at: dict[str, int] = {}
        for label, instruction in lines:
            if (label and self.blocks[-1]) or (self.blocks[-1] and _leaves(self.blocks[-1][-1])):
                self.blocks.append([])
            if label:
                at[label] = len(self.blocks) - 1
            else:
                self.blocks[-1].append(instruction)
        self.next: list[set[int]] = []
        for i, block in enumerate(self.blocks):
            last = block[-1] if block else ""
            always = not last.startswith("@") and not re.search(r"\bU?P\d", last.split(",")[0])
            follows = {i + 1} if i + 1 < len(self.blocks) and not (_leaves(last) and always) else set()
            target = re.search(r"\bBRA\b(?!\.DIV).*?(\.L_\w+)", last)
            self.next.append(follows | ({at[target[1]]} if target else set()))

    def reached(self) -> list[str]:
        """The instructions that the function's entry leads to."""
        return [instruction for block in sorted(self._reach(0, set())) for instruction in self.blocks[block]]

    def loops(self) -> tuple[Loop, ...]:
        """The natural loops. A loop's header is a block that some block behind it jumps back to, where every
        path to that block leads through the header.
        """
        reached = self._reach(0, set())
        bodies: dict[int, set[int]] = {}
        for header in sorted(reached):
            beyond = reached - self._reach(0, {header})  # every path to these leads through the header
            tails = {block for block in beyond if header in self.next[block]}
            if tails:
                bodies[header] = {
                    block for block in beyond if tails & self._reach(block, {header}) or block in tails
                } | {header}
        return self._nested(bodies, None, reached - set().union(*bodies.values()))

    def _nested(self, bodies: dict[int, set[int]], outer: int | None, outside: set[int]) -> tuple[Loop, ...]:
        inside = {
            header: body
            for header, body in bodies.items()
            if outer is None or (header != outer and header in bodies[outer])
        }
        nearest = {
            h: b for h, b in inside.items() if not any(o != h and h in other for o, other in inside.items())
        }
        found = []
        for header, body in nearest.items():
            inner = self._nested({h: b for h, b in bodies.items() if h in body}, header, outside)
            deeper = set().union(*(b for h, b in bodies.items() if h != header and h in body))
            own = [instruction for block in sorted(body - deeper) for instruction in self.blocks[block]]
            beyond = self._reach(header, set())
            around = [
                i
                for block in sorted(outside)
                if block in beyond or header in self._reach(block, set())
                for i in self.blocks[block]
            ]
            found.append(Loop(_count(own), self._shortest(header, body), inner, _count(around)))
        return tuple(found)

    def _reach(self, start: int, closed: set[int]) -> set[int]:
        """The blocks that ``start`` leads to, itself included, on paths without the blocks ``closed``."""
        found: set[int] = set()
        waiting = [start] if start not in closed else []
        while waiting:
            block = waiting.pop()
            if block not in found:
                found.add(block)
                waiting += self.next[block] - closed
        return found

    def _shortest(self, header: int, body: set[int]) -> int:
        """Number of instructions on the shortest path from a header back to it."""
        length = {header: len(self.blocks[header])}
        waiting = [header]
        best = []
        while waiting:
            block = waiting.pop(0)
            for follower in self.next[block] & body:
                if follower == header:
                    best.append(length[block])
                elif (through := length[block] + len(self.blocks[follower])) < length.get(
                    follower, through + 1
                ):
                    length[follower] = through
                    waiting.append(follower)
        return min(best)


def _leaves(instruction: str) -> bool:
    """Whether the instruction may jump or end the program."""
    return re.search(r"\b(BRA|EXIT|RET)\b(?!\.DIV)", instruction) is not None


def _count(instructions: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for instruction in instructions:
        name = re.sub(r"^@!?U?P\w+\s+", "", instruction).split(" ")[0]
        if name:
            counts[next((c for c, names in CLASSES.items() if re.match(names, name)), "integer")] += 1
    return counts


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(TOOLS / name), *args], capture_output=True, text=True, check=True).stdout
