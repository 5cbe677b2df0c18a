"""Launch parameters of the kernels: one frozen dataclass, and a pure function that picks it without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PROCESSORS = {(8, 0): 108, (8, 6): 84, (8, 9): 128, (9, 0): 132, (10, 0): 148, (12, 0): 170}
"""Streaming multiprocessors of the largest GPU of a compute capability, from NVIDIA's data sheets."""

PROGRAMS_PER_PROCESSOR = 6
"""Programs of 4 warps that a processor's 65,536 registers hold at 80 registers a thread."""

MIN_GTS_PER_PROGRAM = 16
"""Loading a tile's priors takes a lane about 400 instructions, a gt 215 (RTMDet's rule): the former are then
12 % of the latter.
"""


def check_integer(name: str, value: object, *, least: int = 1, power_of_two: bool = False) -> None:
    """Refuse what a launch parameter cannot be.

    Raises:
        ValueError: It is no integer of at least ``least``, or no power of two; the message names it.
    """
    if not isinstance(value, int) or value < least or (power_of_two and value & (value - 1)):
        kind = "a power of two" if power_of_two else "a positive integer"
        raise ValueError(
            f"{name}: expected {kind}{f' of at least {least}' if least > 1 else ''}, got {value!r}"
        )


@dataclass(frozen=True)
class KernelConfig:
    """How the kernels are launched. Every choice gives the same bits.

    Attributes:
        rows: Priors a program of ``prior_pass``. Its tile is 16 columns wide.
        prior_warps: Warps of those programs.
        prior_registers: Registers a thread of them may use. Left alone, ptxas aims for fewer than 100 and
            spills a few.
        tile: Priors a program of ``cost_pass``; a lane holds tile / (32 * cost_warps) of them, whose boxes
            stay in registers.
        cost_warps: Warps of those programs.
        gts_per_program: Gts a program of ``cost_pass`` loops over.

    Raises:
        ValueError: A field is no power of two (``gts_per_program``: no positive number), or too small for its
            warps.
    """

    rows: int = 32
    prior_warps: int = 1
    prior_registers: int = 136
    tile: int = 512
    cost_warps: int = 4
    gts_per_program: int = 64

    def __post_init__(self) -> None:
        for name in ("rows", "prior_warps", "tile", "cost_warps"):
            check_integer(name, getattr(self, name), power_of_two=True)
        check_integer("gts_per_program", self.gts_per_program)
        if self.tile < 32 * self.cost_warps:
            raise ValueError(
                f"tile: expected at least a prior a lane, 32 * cost_warps = {32 * self.cost_warps}, got {self.tile}"
            )


INTERPRETER = KernelConfig(rows=512, tile=1024, gts_per_program=1 << 20)
"""For Triton's interpreter, where an operation costs about the same on a tile of any size."""


def known_capability(capability: tuple[int, int]) -> tuple[int, int]:
    """The largest known compute capability that is not above this one, or the smallest known."""
    return max((known for known in PROCESSORS if known <= capability), default=min(PROCESSORS))


class Shape(NamedTuple):
    """What a configuration is chosen by."""

    batch: int
    num_priors: int
    num_gts: int


def bucket(shape: Shape) -> str:
    """The bucket of a shape, whose shapes share a measured configuration: each size up to the next power of
    two.

    Example:
        >>> bucket(Shape(batch=32, num_priors=8400, num_gts=40))
        'b32-p16384-g64'
    """
    batch, num_priors, num_gts = (1 << max(size - 1, 0).bit_length() for size in shape)
    return f"b{batch}-p{num_priors}-g{num_gts}"


def heuristic(capability: tuple[int, int], shape: Shape) -> KernelConfig:
    """The configuration for a compute capability and a shape.

    ``cost_pass`` is bound by its stores, so tiles are as wide as registers allow and gts are split over
    programs only as far as it takes to fill the GPU: a split loads the tile's priors again.

    Args:
        capability: Compute capability, as ``torch.cuda.get_device_capability`` gives it; unknown ones count
            as the nearest known below.
        shape: B, P and G.
    """
    wanted = PROCESSORS[known_capability(capability)] * PROGRAMS_PER_PROCESSOR
    base = KernelConfig()
    programs = max(1, shape.batch * -(-shape.num_priors // base.tile))
    splits = -(-wanted // programs)
    gts = max(MIN_GTS_PER_PROGRAM, -(-shape.num_gts // splits))
    return KernelConfig(gts_per_program=gts)
