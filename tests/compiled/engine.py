"""Builds engine.c, once a version, and the structures that it takes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("engine.c")

COMMAND = ("gcc", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC")
"""Without contraction and aliasing rules: the engine rounds once an instruction, and looks at floats as
bits.
"""

KINDS = (
    "",
    "out of bounds",
    "misaligned",
    "address of nothing",
    "branch or guard on memory nobody wrote",
    "address from memory nobody wrote",
    "atomic on memory nobody wrote",
    "race",
    "shared out of bounds",
    "shared race",
    "deadlock of lanes",
    "sync names exited lanes",
    "shuffle from an inactive lane",
    "too many steps",
    "unsupported",
    "sync mask nobody wrote",
    "stores what nobody wrote",
)
"""What is reported, by the engine's numbers."""

LEVELS = ("", "programs", "warps", "lanes")
"""Between whom a race is, by the engine's numbers."""

ACCESSES = {
    1: ("write", "write"),
    2: ("write", "read"),
    3: ("atomic", "write"),
    4: ("read", "atomic"),
    5: ("read", "write"),
    6: ("write", "atomic"),
    7: ("atomic", "read"),
}
"""The earlier and the later access of a race, by the engine's numbers."""

ORDERS = ("forward", "backward", "random")
"""In which programs start."""

LANES = ("converge", "diverge", "scatter")
"""How lanes that branched apart go on: the lowest instruction first; any; any, and lanes drift apart where
nothing holds them together, as independent thread scheduling allows.
"""

APPROXIMATIONS = ("exact", "hash", "above", "below", "extreme")
"""Results of approximate instructions: rounded correctly; off by a hash of the operand up to what is
documented; off by all of it upwards; downwards; one way or the other.
"""


class Instruction(ctypes.Structure):
    """``Ins``."""

    _fields_ = [
        ("op", ctypes.c_int32),
        ("pred", ctypes.c_int32),
        ("negated", ctypes.c_int32),
        ("nd", ctypes.c_int32),
        ("ns", ctypes.c_int32),
        ("d", ctypes.c_int32 * 4),
        ("s", ctypes.c_int32 * 8),
        ("size", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("a", ctypes.c_int32),
        ("b", ctypes.c_int32),
        ("imm", ctypes.c_int64),
    ]


class Region(ctypes.Structure):
    """``Region``: a tensor argument."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("real", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("init", ctypes.c_void_p),
        ("segment", ctypes.c_int32),
        ("seg_offset", ctypes.c_int64),
    ]


class Report(ctypes.Structure):
    """``Report``: something that was seen, and how often."""

    _fields_ = [
        ("kind", ctypes.c_int32),
        ("pc_a", ctypes.c_int32),
        ("pc_b", ctypes.c_int32),
        ("what", ctypes.c_int32),
        ("count", ctypes.c_int64),
        ("same", ctypes.c_int64),
        ("region", ctypes.c_int32),
        ("cta_a", ctypes.c_int32),
        ("cta_b", ctypes.c_int32),
        ("lane", ctypes.c_int32),
        ("offset", ctypes.c_int64),
    ]


class Launch(ctypes.Structure):
    """``Launch``: all that one execution takes and gives."""

    _fields_ = [
        ("code", ctypes.c_void_p),
        ("num_ins", ctypes.c_int32),
        ("num_slots", ctypes.c_int32),
        ("warps", ctypes.c_int32),
        ("shared_bytes", ctypes.c_int32),
        ("grid", ctypes.c_int64 * 3),
        ("init_values", ctypes.c_void_p),
        ("init_known", ctypes.c_void_p),
        ("wide", ctypes.c_void_p),
        ("slot_tid", ctypes.c_int32 * 3),
        ("slot_ctaid", ctypes.c_int32 * 3),
        ("slot_laneid", ctypes.c_int32),
        ("slot_warpid", ctypes.c_int32),
        ("params", ctypes.c_void_p),
        ("param_bytes", ctypes.c_int32),
        ("num_regions", ctypes.c_int32),
        ("regions", ctypes.c_void_p),
        ("num_segments", ctypes.c_int32),
        ("seg_sizes", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("inflight", ctypes.c_int32),
        ("quantum", ctypes.c_int32),
        ("lanes_mode", ctypes.c_int32),
        ("order", ctypes.c_int32),
        ("approx", ctypes.c_int32),
        ("check_races", ctypes.c_int32),
        ("strict_lanes", ctypes.c_int32),
        ("max_steps", ctypes.c_int64),
        ("reports", ctypes.c_void_p),
        ("max_reports", ctypes.c_int32),
        ("num_reports", ctypes.c_int32),
        ("steps", ctypes.c_int64),
        ("accesses", ctypes.c_int64),
        ("divergent", ctypes.c_int64),
        ("hits", ctypes.c_void_p),
    ]


def missing() -> str | None:
    """Why the engine cannot be built here, or None."""
    return (
        None
        if shutil.which(COMMAND[0])
        else f"compiled kernels are executed by an engine that {COMMAND[0]} builds: not found"
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The engine, built into the temporary folder once for each of its versions.

    Raises:
        RuntimeError: There is no gcc; the message says so.
        subprocess.CalledProcessError: It fails.
    """
    version = hashlib.sha256(SOURCE.read_bytes() + " ".join(COMMAND).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"simota-triton-engine-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{version}.so"
    if not built.exists():
        reason = missing()
        if reason is not None:
            raise RuntimeError(reason)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            new = Path(scratch, "engine.so")
            subprocess.run([*COMMAND, "-o", new, SOURCE, "-lm"], check=True)
            new.replace(built)  # whole at once, whoever else builds it
    engine = ctypes.CDLL(str(built))
    engine.op_name.restype = ctypes.c_char_p
    return engine


@functools.cache
def opcodes() -> dict[str, int]:
    """Name of an operation -> its number."""
    engine = library()
    return {engine.op_name(number).decode(): number for number in range(engine.op_count())}
