"""Reads the PTX that Triton emits and lowers it to the instructions of engine.c."""

from __future__ import annotations

import ast
import ctypes
import functools
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .engine import Instruction, opcodes

BYTES = {
    "pred": 0,
    **dict.fromkeys(("b8", "u8", "s8"), 1),
    **dict.fromkeys(("b16", "u16", "s16", "f16", "bf16"), 2),
    **dict.fromkeys(("b32", "u32", "s32", "f32", "f16x2", "bf16x2"), 4),
    **dict.fromkeys(("b64", "u64", "s64", "f64", "f32x2"), 8),
}
"""Of a PTX type."""

COMPARISONS = {
    **{"eq": 0, "ne": 1, "lt": 2, "le": 3, "gt": 4, "ge": 5, "num": 6, "nan": 7},
    **{"lo": 2, "ls": 3, "hi": 4, "hs": 5},
    **{"equ": 16, "neu": 17, "ltu": 18, "leu": 19, "gtu": 20, "geu": 21},
}
"""The engine's number of a comparison; those of floats that are true of NaN are 16 higher."""

_ARITIES = {
    1: "NEG ABS NOT POPC CLZ CVT RCP LG2 EX2 SQRT RSQRT MOV UNPACK2",
    2: "ADD SUB MUL AND OR XOR SHL SHR MIN MAX DIV REM SETP REDUX VOTE ATOM PACK2",
    3: "MAD FMA BFE PRMT SELP",
    4: "SHFL",
}
OPERANDS = {name: count for count, names in _ARITIES.items() for name in names.split()}
"""How many operands an operation reads, by the beginning of its name."""

SPECIAL = (
    *(f"%{name}.{axis}" for name in ("tid", "ctaid", "nctaid") for axis in "xyz"),
    "%ntid.x",
    "%laneid",
    "%warpid",
)
"""Registers that are set when a program starts."""


class Unsupported(Exception):
    """An instruction, or a form of one, that is not modelled."""


class Line(NamedTuple):
    """A line of source code, and the function that it belongs to."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number} {self.function}"


Place = tuple[Line, ...]
"""Where an instruction comes from: its line, then the call that it was inlined at, and so on up to the
kernel.
"""


@dataclass
class Program:
    """A kernel, lowered. Registers, constants and special registers are slots.

    Attributes:
        name: Of the kernel.
        types: PTX types of its parameters.
        code: Its instructions.
        text: Of each instruction.
        places: Of each instruction.
        slots: Name of a register or constant -> its slot.
        constants: Slot -> value.
        offsets: Where each parameter lies in their block, in bytes; then where they end.
    """

    name: str
    types: list[str]
    code: list[Instruction] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    constants: dict[int, int] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)

    def slot(self, name: str) -> int:
        """The slot of a register."""
        return self.slots.setdefault(name, len(self.slots))

    def constant(self, value: int) -> int:
        """The slot of a constant."""
        slot = self.slot(f"={value}")
        self.constants[slot] = value & 0xFFFFFFFFFFFFFFFF
        return slot

    @functools.cached_property
    def wide(self) -> np.ndarray:
        """1 for each slot that holds 64 bits."""
        return np.array([name.startswith(("%rd", "%fd")) for name in self.slots], np.uint8)

    @functools.cached_property
    def array(self) -> ctypes.Array[Instruction]:
        """The instructions as the engine takes them."""
        return (Instruction * len(self.code))(*self.code)

    def parameters(self, arguments: list[int]) -> bytes:
        """Arguments as a kernel finds them."""
        block = bytearray(self.offsets[-1])
        for offset, kind, value in zip(self.offsets, self.types, arguments, strict=False):
            size = BYTES[kind]
            block[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        return bytes(block)

    def initial(self, grid: tuple[int, ...], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """What slots hold when a program starts, and which of them are set."""
        values, known = np.zeros(len(self.slots), np.uint64), np.zeros(len(self.slots), np.uint8)
        special = dict.fromkeys(SPECIAL, 0) | {"%ntid.x": threads}
        special |= {f"%nctaid.{axis}": count for axis, count in zip("xyz", grid, strict=True)}
        for slot, value in (
            self.constants | {self.slots[name]: value for name, value in special.items()}
        ).items():
            values[slot], known[slot] = value, 1
        return values, known


def float_bits(value: float) -> int:
    """A float32 argument."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits


@functools.cache
def _functions(path: str) -> tuple[tuple[int, int, str], ...]:
    """First line, last line and name of each function of a file, outer ones first."""
    tree = ast.parse(Path(path).read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return tuple((node.lineno, node.end_lineno or node.lineno, node.name) for node in found)


def _line(path: str, number: int) -> Line:
    within = (
        [name for first, last, name in _functions(path) if first <= number <= last]
        if Path(path).exists()
        else []
    )
    return Line(Path(path).name, number, within[-1] if within else "?")


class _Places:
    """Follows the .loc directives of a kernel."""

    def __init__(self, ptx: str) -> None:
        self.files = {
            int(number): path
            for number, path in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', ptx, re.MULTILINE)
        }
        self.callers: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.at: tuple[int, ...] | None = None

    def follow(self, directive: str) -> None:
        """Takes note of one."""
        numbers = re.match(
            r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?", directive
        )
        assert numbers, directive
        found = tuple(int(number) for number in numbers.groups() if number)
        self.at = found[:3]
        self.callers.pop(self.at, None)
        if len(found) > 3:
            self.callers[self.at] = found[3:]

    def now(self) -> Place:
        """The place of the next instruction."""
        chain: list[tuple[int, ...]] = []
        at = self.at
        while at is not None and at not in chain:
            chain.append(at)
            at = self.callers.get(at)
        return tuple(_line(self.files.get(file, "?"), number) for file, number, _ in chain if number)


def parse(ptx: str) -> Program:
    """The one kernel of a PTX module.

    Raises:
        Unsupported: It holds something that is not modelled; the message gives the instruction.
    """
    entry = re.search(r"\.visible \.entry (\w+)\((.*?)\)\s*(?:\.\w+[^{]*)?\{(.*)", ptx, re.DOTALL)
    assert entry, "no kernel"
    name, parameters, body = entry.groups()
    program = Program(name, re.findall(r"\.param\s+\.(\w+)", parameters))
    end = 0
    for kind in program.types:
        end = -(-end // BYTES[kind]) * BYTES[kind]
        program.offsets.append(end)
        end += BYTES[kind]
    program.offsets.append(end)
    names = dict(zip(re.findall(r"(\w+_param_\d+)", parameters), program.offsets, strict=False))
    names |= dict.fromkeys(re.findall(r"\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[", ptx), 0)
    places = _Places(ptx)
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for raw in body.splitlines():
        text = raw.split("//")[0].strip()
        if text == "}":
            break
        if re.match(r"\.loc\s", text):
            places.follow(text)
        elif re.match(r"^[$\w]+:$", text):
            labels[text[:-1]] = len(program.code)
        elif text == "{":
            raise Unsupported(f"{name}: a scope")
        elif not text.startswith("."):
            for statement in filter(None, (part.strip() for part in text.split(";"))):
                try:
                    _Statement(program, statement, names, jumps).lower()
                except (Unsupported, KeyError, IndexError, ValueError) as error:
                    raise Unsupported(f"{name}: {statement} ({error!r})") from error
                while len(program.text) < len(program.code):
                    program.text.append(statement)
                    program.places.append(places.now())
    for pc, label in jumps:
        program.code[pc].imm = labels[label]
    program.code.append(Instruction(op=opcodes()["RET"], pred=-1))
    program.text.append("ret")
    program.places.append(())
    for special in SPECIAL:
        program.slot(special)
    return program


def _split(text: str) -> list[str]:
    """Operands: at the commas outside of braces and brackets."""
    parts, depth, now = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append(now.strip())
            now = ""
        else:
            now += character
    return [*parts, now.strip()] if now.strip() else parts


def _vector(text: str) -> list[str]:
    return [part.strip() for part in text.strip("{} ").split(",")] if text.startswith("{") else [text]


def _register_bytes(name: str) -> int:
    return {"%rs": 2, "%rd": 8}.get(name[:3], 4)


class _Statement:
    """One instruction of PTX."""

    def __init__(
        self, program: Program, statement: str, names: dict[str, int], jumps: list[tuple[int, str]]
    ) -> None:
        self.program, self.names, self.jumps = program, names, jumps
        guard = re.match(r"@(!?)(%\w+)\s+(.*)", statement, re.DOTALL)
        self.guard = (program.slot(guard[2]), int(guard[1] == "!")) if guard else (-1, 0)
        self.head, tail = [*(guard[3] if guard else statement).split(None, 1), ""][:2]
        self.parts, self.operands = self.head.split("."), _split(tail)

    def emit(self, operation: str, destinations: list[str], sources: list[int], **fields: int) -> None:
        """Appends an instruction of the engine."""
        words = operation.split("_")
        for name in (operation, operation.rsplit("_", 1)[0], words[0]):
            if OPERANDS.get(name, len(sources)) != len(sources):
                raise Unsupported(f"{operation} of {len(sources)} operands")
        instruction = Instruction(pred=self.guard[0], negated=self.guard[1], size=4, count=1)
        instruction.op, instruction.nd, instruction.ns = opcodes()[operation], len(destinations), len(sources)
        for i, name in enumerate(destinations):
            instruction.d[i] = -1 if name == "_" else self.program.slot(name)
        for i, slot in enumerate(sources):
            instruction.s[i] = slot
        for name, value in fields.items():
            setattr(instruction, name, value)
        self.program.code.append(instruction)

    def source(self, text: str) -> int:
        """The slot of an operand that is read."""
        text = text.strip()
        if re.match(r"^0[fF][0-9a-fA-F]{8}$", text) or re.match(r"^0[dD][0-9a-fA-F]{16}$", text):
            return self.program.constant(int(text[2:], 16))
        if re.match(r"^-?(0[xX][0-9a-fA-F]+U?|\d+U?)$", text):
            width = (
                4 if self.parts[0] in ("shfl", "redux", "vote", "bar") else BYTES.get(self.parts[-1], 8) or 1
            )
            return self.program.constant(int(text.rstrip("U"), 0) & ((1 << 8 * width) - 1))
        if text in self.names:
            return self.program.constant(self.names[text])
        if not text.startswith("%"):
            raise Unsupported(text)
        return self.program.slot(text)

    def sources(self, texts: list[str]) -> list[int]:
        return [self.source(text) for text in texts]

    def address(self, text: str) -> tuple[int, int]:
        """The slot of a base and what is added to it."""
        base, _, offset = text.strip("[] ").partition("+")
        return self.source(base.strip()), int(offset.strip() or "0", 0)

    def lower(self) -> None:
        """Appends what the engine executes for the statement."""
        kind = self.parts[0]
        special = getattr(self, f"_{kind}", None)
        if special is not None:
            special()
        else:
            self._plain(kind, self.parts[-1], self.sources(self.operands[1:]))

    def _bra(self) -> None:
        self.emit("BRA", [], [])
        self.jumps.append((len(self.program.code) - 1, self.operands[0]))

    def _ret(self) -> None:
        self.emit("RET", [], [])

    _exit = _ret

    def _bar(self) -> None:
        if self.parts[1] == "sync" and len(self.operands) == 1:
            self.emit("BAR_SYNC", [], [])
        elif self.parts[1] == "warp":
            self.emit("BAR_WARP_SYNC", [], [self.source(self.operands[0])])
        else:
            raise Unsupported("barriers of some threads")

    def _mov(self) -> None:
        to, of = self.operands
        size = BYTES[self.parts[-1]]
        if of.startswith("{"):
            self.emit("PACK2", [to], self.sources(_vector(of)), size=size // 2)
        elif to.startswith("{"):
            self.emit("UNPACK2", _vector(to), [self.source(of)], size=size // 2)
        else:
            self.emit("MOV", [to], [self.source(of)], size=size or 8)

    def _ld(self) -> None:
        to, at = self.operands
        slot, offset = self.address(at)
        kind = self.parts[-1]
        values = _vector(to)
        signed = int(kind[0] == "s")
        if self.parts[1] == "param":
            self.emit("LD_PARAM", [to], [slot], size=BYTES[kind], imm=offset, a=signed, b=_register_bytes(to))
        else:
            width = _register_bytes(values[0]) if signed else 8
            fields = {"size": BYTES[kind], "count": len(values), "imm": offset, "a": signed, "b": width}
            self.emit(f"LD_{self._space()}", values, [slot], **fields)

    def _st(self) -> None:
        at, of = self.operands
        slot, offset = self.address(at)
        values = _vector(of)
        fields = {"size": BYTES[self.parts[-1]], "count": len(values), "imm": offset}
        self.emit(f"ST_{self._space()}", [], [slot, *self.sources(values)], **fields)

    def _space(self) -> str:
        space = self.parts[1].removesuffix("::cta").upper()
        if space not in ("GLOBAL", "SHARED") or {"volatile", "acquire", "release", "relaxed"} & set(
            self.parts
        ):
            raise Unsupported(self.head)
        return space

    def _ldmatrix(self) -> None:
        to, at = self._matrix()
        slot, offset = self.address(at)
        values = _vector(to)
        self.emit("LDMATRIX", values, [slot], count=len(values), imm=offset)

    def _stmatrix(self) -> None:
        at, of = self._matrix()
        slot, offset = self.address(at)
        values = _vector(of)
        self.emit("STMATRIX", [], [slot, *self.sources(values)], count=len(values), imm=offset)

    def _matrix(self) -> list[str]:
        if "m8n8" not in self.parts or "trans" in self.parts or "b16" not in self.parts:
            raise Unsupported(self.head)
        return self.operands

    def _atom(self) -> None:
        kind = self.parts[-1]
        if self.parts[1] != "global" or "gpu" not in self.parts or kind[0] == "f":
            raise Unsupported(self.head)
        how = next(part for part in self.parts if part in ("add", "min", "max", "or", "and", "exch"))
        suffix = kind if how in ("min", "max") else 8 * BYTES[kind]
        destinations, (at, value) = self.operands[:-2], self.operands[-2:]
        slot, offset = self.address(at)
        name = f"ATOM_{how}_{suffix}".upper()
        self.emit(name, destinations, [slot, self.source(value)], size=BYTES[kind], imm=offset)

    _red = _atom

    def _shfl(self) -> None:
        to, *rest = self.operands
        self.emit(
            f"SHFL_{self.parts[2].upper()}", [name.strip() for name in to.split("|")], self.sources(rest)
        )

    def _plain(self, kind: str, last: str, sources: list[int]) -> None:
        """Instructions with one destination, which comes first."""
        parts, to = self.parts, self.operands[:1]
        bits = 8 * BYTES.get(last, 0)
        name = kind.upper()
        if kind == "redux":
            how = parts[2].upper()
            if "abs" in parts or "NaN" in parts:
                raise Unsupported(self.head)
            self.emit(
                f"REDUX_{how}_{last[0].upper()}" if how in ("MIN", "MAX") else f"REDUX_{how}", to, sources
            )
        elif kind == "vote":
            self.emit(f"VOTE_{parts[2].upper()}", to, sources)
        elif kind == "setp":
            if len(parts) != 3 or "|" in to[0]:
                raise Unsupported(self.head)
            if last in ("f32", "f64", "f16", "bf16"):
                self.emit(f"SETP_{last.upper()}", to, sources, a=COMPARISONS[parts[1]])
            elif last[0] in "bsu" and "f" not in last:
                self.emit(
                    "SETP_INT", to, sources, a=COMPARISONS[parts[1]], size=BYTES[last], b=int(last[0] == "s")
                )
            else:
                raise Unsupported(self.head)
        elif kind == "cvt":
            self._convert(parts[-2], last, to, sources)
        elif kind in ("selp", "prmt", "activemask"):
            self.emit(name, to, sources)
        elif kind in ("and", "or", "xor"):
            self.emit(name, to, sources, size=BYTES[last])
        elif kind == "not":
            self.emit("NOT_PRED" if last == "pred" else f"NOT_{bits}", to, sources)
        elif kind == "shl":
            self.emit(f"SHL_{bits}", to, sources)
        elif kind == "shr":
            self.emit(f"SHR_{'S' if last[0] == 's' else 'U'}{bits}", to, sources)
        elif kind in ("rcp", "lg2", "ex2", "sqrt", "rsqrt") and "approx" in parts:
            if "ftz" not in parts or last != "f32":
                raise Unsupported(self.head)
            self.emit(f"{name}_APPROX", to, sources)
        elif kind == "div" and last == "f32" and ("approx" in parts or "full" in parts):
            self.emit("DIV_APPROX", to, sources, a=int("ftz" in parts))
        elif kind == "sqrt":
            self.emit("SQRT_F32", to, sources)
        elif kind in ("mul", "mad") and parts[1] in ("lo", "wide", "hi"):
            self.emit(
                f"{name}_LO_{bits}" if parts[1] == "lo" else f"{name}_{parts[1].upper()}_{last.upper()}",
                to,
                sources,
            )
        elif kind in ("min", "max") and last == "f32" and len(sources) == 3 and len(parts) == 2:
            part = f"%{len(self.program.code)} of three"
            self.emit(f"{name}_F32", [part], sources[:2])
            self.emit(f"{name}_F32", to, [self.program.slot(part), sources[2]])
        elif last in ("f32", "f64", "f32x2"):
            modifiers = set(parts[1:-1])
            if not modifiers <= {"rn", "sat", "NaN"} or ("sat" in modifiers and kind != "fma"):
                raise Unsupported(self.head)
            extra = "_SAT" if "sat" in modifiers else "_NAN" if "NaN" in modifiers else ""
            self.emit(f"{name}{extra}_{last.upper()}", to, sources)
        elif kind in ("add", "sub") and len(parts) == 2:
            self.emit(f"{name}_{bits}", to, sources)
        elif kind in ("bfe", "min", "max", "div", "rem", "neg", "abs"):
            self.emit(f"{name}_{last.upper()}", to, sources)
        elif kind in ("popc", "clz"):
            self.emit(f"{name}_32", to, sources)
        else:
            raise Unsupported(self.head)

    def _convert(self, to: str, of: str, destination: list[str], sources: list[int]) -> None:
        if "f" not in to + of:
            if len(self.parts) != 3:
                raise Unsupported(self.head)
            self.emit("CVT_INT", destination, sources, size=BYTES[to], b=BYTES[of], a=int(of[0] == "s"))
        else:
            if (to in ("s32", "u32") and self.parts[1] != "rzi") or {"sat", "ftz"} & set(self.parts):
                raise Unsupported(self.head)
            self.emit(f"CVT_{to.upper()}_{of.upper()}", destination, sources)
