"""Tiles: blocks of neighbouring priors that a gt looks at, or skips, as a whole.

The priors of a tile are neighbouring cells of one level's grid. Which priors share a tile decides how much
can be skipped, never an answer: what is known of a tile is taken from the priors that are in it. Inside the
streaming kernels a prior is a *slot*: slot = tile * TILE + place within the tile. Slots beyond a level's edge
hold no prior.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..levels import decode

# Values lie in planes within a tile (summaries: within 32 tiles): lanes read neighbouring addresses, and
# planes are a constant distance apart. Planes of the whole batch would each need an address of their own in
# registers.


@triton.jit
def find_cells(tile, starts, widths, first_tiles, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """The block of cells of a tile.

    Args:
        tile: Index of the tile; tiles count row by row through each level, level after level.
        starts: First prior of each level of the grid, and P, coded (see ``host.codes``).
        widths: Cells a row of each level, coded.
        first_tiles: First tile of each level, coded.
        TILE: Priors a tile.
        WIDTH: Cells a row of a tile.

    Returns:
        level, level_start, the prior in the tile's first cell, cells a row of the level, cells left in a row
        of the tile, end of the level.
    """
    HEIGHT: tl.constexpr = TILE // WIDTH
    level = 0
    start = decode(starts[0], False)
    end = decode(starts[1], False)
    width = decode(widths[0], False)
    first = 0
    for i in tl.static_range(1, len(widths)):
        if tile >= decode(first_tiles[i], False):
            level = i
            start = end
            end = decode(starts[i + 1], False)
            width = decode(widths[i], False)
            first = decode(first_tiles[i], False)
    across = tl.cdiv(width, WIDTH)
    row = (tile - first) // across
    column = (tile - first - row * across) * WIDTH
    return level, start, start + row * HEIGHT * width + column, width, width - column, end


@triton.jit
def cells(place, origin, width, left, end, WIDTH: tl.constexpr):
    """Priors in places of a tile, and whether there is one. The rest as :func:`find_cells` returns it."""
    column = place % WIDTH
    p = origin + place // WIDTH * width + column
    return p, (column < left) & (p < end)


@triton.jit
def slot_at(slot, PLANES: tl.constexpr, TILE: tl.constexpr):
    """Offset of the first plane of slots in [T, PLANES, TILE]; the others follow TILE apart."""
    return slot // TILE * (PLANES * TILE) + slot % TILE


@triton.jit
def summary_at(tile):
    """Offset of the first value of tiles in [T / 32, SUMMARY, 32]; the others follow 32 apart."""
    return (tile >> 5) * ((const.SUMMARY - 1) * 32) + tile


@triton.jit
def load_four(pointer, STEP: tl.constexpr):
    """Four values STEP apart: a slot's box, or its point and strides."""
    return tl.load(pointer), tl.load(pointer + STEP), tl.load(pointer + 2 * STEP), tl.load(pointer + 3 * STEP)


@triton.jit
def find_column(
    tile, image, label, starts, first_tiles, levels, strides_b, strides_p, strides_c, LAYOUT: tl.constexpr
):
    """An image's logits of a class on the level of a tile: pointer such that prior p lies at pointer + p *
    stride_p.

    Every level's pointer is formed, and one chosen: the former leaves the loop over tiles, where the choice
    is all that is left. ``image`` and ``label`` are int64. The rest as :func:`find_cells` and
    ``levels.find_logits`` take it.
    """
    pointer, stride_p = _column(
        image, label, starts[0], levels[0], strides_b[0], strides_p[0], strides_c[0], LAYOUT
    )
    for i in tl.static_range(1, len(levels)):
        there = tile >= decode(first_tiles[i], False)
        column, stride = _column(
            image, label, starts[i], levels[i], strides_b[i], strides_p[i], strides_c[i], LAYOUT
        )
        pointer = tl.where(there, column, pointer)
        stride_p = tl.where(there, stride, stride_p)
    return pointer, stride_p


@triton.jit
def _column(image, label, start, level, stride_b, stride_p, stride_c, LAYOUT: tl.constexpr):
    """A level's column, as :func:`find_column` returns it."""
    step = decode(stride_p, False).to(tl.int64)
    if LAYOUT == "priors":
        step = tl.full([], 1, tl.int64)
    pointer = level + (
        image * decode(stride_b, False) + label * decode(stride_c, False) - decode(start, False) * step
    )
    return pointer, step


@triton.jit
def find_level(tile, starts, first_tiles, LEVELS: tl.constexpr):
    """Level of the logits that a tile's priors lie on, and the level's first prior. The rest as
    :func:`find_cells` takes it.
    """
    level = 0
    start = decode(starts[0], False)
    for i in tl.static_range(1, LEVELS):
        if tile >= decode(first_tiles[i], False):
            level = i
            start = decode(starts[i], False)
    return level, start
