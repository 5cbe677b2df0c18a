"""Launch parameters of backend ``"triton"``, and the heuristic that chooses them. Also the shapes that launch
parameters of every backend are chosen by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PROCESSORS = {(8, 0): 108, (8, 6): 84, (8, 9): 128, (9, 0): 132, (10, 0): 148, (12, 0): 170}
"""Compute capability -> streaming multiprocessors of its largest GPU, from NVIDIA's data sheets."""

PROGRAMS_PER_PROCESSOR = 6
"""How many programs of 4 warps a multiprocessor's 65,536 registers hold, at 80 registers a thread."""

MIN_GTS_PER_PROGRAM = 16
"""A program takes about 400 instructions a lane to load its tile of priors and 215 for each gt (RTMDet's
rule). With 16 gts, loading is 12 % of the rest.
"""


def check_integer(name: str, value: object, *, least: int = 1, power_of_two: bool = False) -> None:
    """Check the value of a launch parameter.

    Raises:
        ValueError: It is no integer of at least ``least``, or no power of two where it must be one.
    """
    if not isinstance(value, int) or value < least or (power_of_two and value & (value - 1)):
        kind = "a power of two" if power_of_two else "a positive integer"
        raise ValueError(
            f"{name}: expected {kind}{f' of at least {least}' if least > 1 else ''}, got {value!r}"
        )


@dataclass(frozen=True)
class KernelConfig:
    """How the kernels of backend ``"triton"`` are launched. Every choice gives the same bits.

    Attributes:
        rows: Priors of a program of ``prior_pass``, which reads their logits in tiles of ``rows`` x 16
            classes.
        prior_warps: Warps of a program of ``prior_pass``.
        prior_registers: Registers that a thread of ``prior_pass`` may use. Without this limit ptxas aims for
            fewer than 100 and spills a few.
        tile: Priors of a program of ``cost_pass``. Each lane holds the boxes of tile / (32 * cost_warps)
            priors in registers.
        cost_warps: Warps of a program of ``cost_pass``.
        gts_per_program: Gts that a program of ``cost_pass`` loops over.

    Raises:
        ValueError: A field is no power of two (``gts_per_program`` and ``prior_registers``: no positive
            number), or ``tile`` has fewer priors than the program has lanes.
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
        for name in ("gts_per_program", "prior_registers"):
            check_integer(name, getattr(self, name))
        if self.tile < 32 * self.cost_warps:
            raise ValueError(
                f"tile: expected at least a prior a lane, 32 * cost_warps = {32 * self.cost_warps}, "
                f"got {self.tile}"
            )


INTERPRETER = KernelConfig(rows=512, tile=1024, gts_per_program=1 << 20)
"""For Triton's interpreter, which takes about the same time for an operation on a tile of any size."""


def known_capability(capability: tuple[int, int]) -> tuple[int, int]:
    """The largest known compute capability that is not above this one, or the smallest known."""
    return max((known for known in PROCESSORS if known <= capability), default=min(PROCESSORS))


class Shape(NamedTuple):
    """The shape of a batch, which launch parameters are chosen by: B, P and the number of gts, which is that
    of the largest image for backend ``"triton"`` and that of the whole batch for ``"triton-stream"``.
    """

    batch: int
    num_priors: int
    num_gts: int


def bucket(shape: Shape) -> str:
    """The name of the bucket that a shape falls into: each size is rounded up to a power of two. Shapes in
    one bucket share measured launch parameters.

    Example:
        >>> bucket(Shape(batch=32, num_priors=8400, num_gts=40))
        'b32-p16384-g64'
    """
    batch, num_priors, num_gts = (1 << max(size - 1, 0).bit_length() for size in shape)
    return f"b{batch}-p{num_priors}-g{num_gts}"


def heuristic(capability: tuple[int, int], shape: Shape) -> KernelConfig:
    """Launch parameters of backend ``"triton"`` for a compute capability and a shape.

    ``cost_pass`` is bound by its stores, so tiles are as wide as registers allow. The gts are divided among
    several programs only as far as it takes to fill the GPU, because each of these programs loads the tile's
    priors again.

    Args:
        capability: Compute capability, as ``torch.cuda.get_device_capability`` gives it. An unknown one
            counts as the nearest known below.
        shape: B, P and the number of gts of the largest image.
    """
    wanted = PROCESSORS[known_capability(capability)] * PROGRAMS_PER_PROCESSOR
    base = KernelConfig()
    programs = max(1, shape.batch * -(-shape.num_priors // base.tile))
    splits = -(-wanted // programs)
    gts = max(MIN_GTS_PER_PROGRAM, -(-shape.num_gts // splits))
    return KernelConfig(gts_per_program=gts)
