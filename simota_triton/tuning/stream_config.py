"""Launch parameters of backend ``"triton-stream"``, and the heuristic that chooses them."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import SimOTAConfig
from .kernel_config import PROCESSORS, Shape, check_integer, known_capability

MAX_SPLITS = 8
"""At most so many programs share a gt's search for its largest IoUs: ``select`` merges their lists, of 32
IoUs each, in the registers of one warp.
"""

WARPS_PER_PROCESSOR = 24
"""How many programs of one warp a multiprocessor's 65,536 registers hold, at 80 registers a thread."""


@dataclass(frozen=True)
class StreamConfig:
    """How the streaming kernels are launched. Every choice gives the same bits.

    Attributes:
        tile: Priors of a tile, which lie in a block of cells of one level. A tile is visited or skipped as a
            whole.
        rows: Priors a program of ``sums_and_ious`` that sums logits; 16 at most where these are not a head's
            maps.
        bounds: Tiles whose bounds a program of ``select`` keeps in registers at once; 64 at most with GIoU,
            128 with ``own_pairs_only``.
        iou_bounds: The same of ``sums_and_ious``, whose programs see only every ``splits``-th tile.
        splits: Programs of ``sums_and_ious`` that share the tiles of a gt, at most ``MAX_SPLITS``.
        gts: Gts that ``prepare`` and ``resolve`` look at side by side.
        resolvers: Programs of ``resolve``, each of which takes contested priors in turn.

    Raises:
        ValueError: A field is no power of two (``resolvers``: no positive number) or out of range.
    """

    tile: int = 64
    rows: int = 16
    bounds: int = 256
    iou_bounds: int = 64
    splits: int = 1
    gts: int = 64
    resolvers: int = 1024

    def __post_init__(self) -> None:
        for name, least in (
            ("tile", 32),
            ("rows", 8),
            ("bounds", 32),
            ("iou_bounds", 32),
            ("splits", 1),
            ("gts", 32),
        ):
            check_integer(name, getattr(self, name), least=least, power_of_two=True)
        check_integer("resolvers", self.resolvers)
        if self.splits > MAX_SPLITS:
            raise ValueError(f"splits: expected at most {MAX_SPLITS}, got {self.splits}")
        if self.rows > self.tile:
            raise ValueError(f"rows: expected at most the priors of a tile, {self.tile}, got {self.rows}")

    def sum_rows(self, layout: str) -> int:
        """``rows`` as they are launched for class logits of a layout (see ``levels.find_logits``): pointers
        to logits with gaps, or to classes side by side, take the registers of 16.
        """
        return self.rows if layout == "priors" else min(self.rows, 16)

    def select_bounds(self, config: SimOTAConfig) -> int:
        """``bounds`` as they are launched for a configuration: the enclosing box of GIoU and a second region
        take the registers of some.
        """
        most = 64 if config.iou_cost == "giou" else 128 if config.own_pairs_only else self.bounds
        return min(self.bounds, most)


STREAM_INTERPRETER = StreamConfig(tile=1024, rows=1024, bounds=32, iou_bounds=32, resolvers=1)
"""For Triton's interpreter, which takes about the same time for an operation on a tile of any size."""


def stream_heuristic(capability: tuple[int, int], shape: Shape) -> StreamConfig:
    """Launch parameters of backend ``"triton-stream"`` for a compute capability and a shape.

    One warp works for one gt, so a few gts would leave most of a GPU idle. Then several warps share each gt's
    search for its largest IoUs. That takes a few more insertions into their lists (26 to 77 a gt in simulated
    scenes) but divides the time of the search. There are no more such warps than the GPU holds at once,
    because the programs that sum over classes take turns with them.

    Args:
        capability: Compute capability, as ``torch.cuda.get_device_capability`` gives it. An unknown one
            counts as the nearest known below.
        shape: B, P and the number of gts of the whole batch.
    """
    processors = PROCESSORS[known_capability(capability)]
    room = processors * WARPS_PER_PROCESSOR
    splits = 1
    while splits < MAX_SPLITS and 2 * splits * shape.num_gts <= room:
        splits *= 2
    tiles = -(-shape.num_priors // StreamConfig.tile)
    # Keeping more bounds at once visits fewer tiles. But places for more bounds than there are tiles cost as
    # much as full ones.
    bounds, iou_bounds = (256, 64) if tiles <= 256 else (128, 128)
    # A block of gts that an image does not fill costs as much as a full one.
    gts = 128 if shape.num_gts > 128 * shape.batch else 64
    # A program's first 250 instructions are the same for any number of rows, so 32 rows are better than 16.
    # For compute capability 10.0 ptxas spills at 32.
    rows = 16 if known_capability(capability) == (10, 0) else 32
    return StreamConfig(
        rows=rows, bounds=bounds, iou_bounds=iou_bounds, splits=splits, gts=gts, resolvers=8 * processors
    )
