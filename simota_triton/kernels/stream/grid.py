"""Which priors share a tile: a host side that needs neither Triton nor a device."""

from __future__ import annotations

import functools
import math
from itertools import accumulate
from typing import NamedTuple

Cells = tuple[tuple[int, int], ...]
"""Rows and columns of each level of the grid that priors form."""


@functools.cache
def guess_cells(num_priors: int) -> Cells:
    """The square pyramid of this many priors, each level half as wide as the one before (rounded up); () if
    there is none.

    A wrong guess groups priors badly, which costs time and nothing else.
    """
    for levels in (3, 4, 5, 2, 1):
        widest = math.isqrt(num_priors)
        least = math.isqrt(int(num_priors * 3 / 4 / (1 - 4.0**-levels))) - levels
        for side in range(widest, max(least, 0), -1):
            sides = [side]
            while len(sides) < levels:
                sides.append(-(-sides[-1] // 2))
            if sum(s * s for s in sides) == num_priors:
                return tuple((s, s) for s in sides)
    return ()


class Grid(NamedTuple):
    """How priors are grouped into tiles.

    Attributes:
        starts: First prior of each level, then P.
        widths: Cells a row of each level.
        first_tiles: First tile of each level, then T.
        tile_width: Cells a row of a tile.
    """

    starts: tuple[int, ...]
    widths: tuple[int, ...]
    first_tiles: tuple[int, ...]
    tile_width: int

    @property
    def num_tiles(self) -> int:
        return self.first_tiles[-1]


def find_grid(cells: Cells, tile: int, levels: tuple[int, ...]) -> Grid:
    """The grid of priors whose class logits lie on levels of these sizes, for tiles of ``tile`` priors.

    Priors of which no grid is known are tiled as they come: each level as rows as wide as a tile.
    """
    tile_width = 1 << ((tile.bit_length() - 1) // 2 + (tile.bit_length() - 1) % 2)
    cells = tuple((rows, columns) for rows, columns in cells if rows * columns) or (
        guess_cells(sum(levels)) if len(levels) == 1 else ()
    )
    if cells and (len(levels) == 1 or tuple(rows * columns for rows, columns in cells) == levels):
        sizes, widths = [rows * columns for rows, columns in cells], [columns for _, columns in cells]
    else:
        sizes, widths = list(levels), [tile_width] * len(levels)
    height = tile // tile_width
    rows = (-(-size // width) for size, width in zip(sizes, widths, strict=True))
    tiles = (-(-width // tile_width) * -(-down // height) for width, down in zip(widths, rows, strict=True))
    return Grid(
        tuple(accumulate(sizes, initial=0)), tuple(widths), tuple(accumulate(tiles, initial=0)), tile_width
    )
