"""Tiles: blocks of neighbouring priors that a gt looks at, or skips, as a whole.

The priors of a tile are neighbouring cells of one level's grid. Which priors share a tile decides how much
can be skipped, never an answer: what is known of a tile is taken from the priors that are in it. Inside the
streaming kernels a prior goes by its *slot*::

    slot = tile * TILE + place within the tile

Slots beyond a level's edge hold no prior. Values of slots lie in planes within their tile, [T, PLANES, TILE],
those of tiles in planes within a group, [ceil(T / GROUP), SUMMARY, GROUP]: lanes read neighbouring addresses,
and planes are a constant distance apart. Planes of the whole batch would each need an address of their own in
registers. The planes are named in ``constants``.
"""

import triton
import triton.language as tl

from .. import constants as const
from ..levels import decode, find_logits


@triton.jit
def find_cells(tile, starts, widths, first_tiles, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """The block of cells of a tile.

    Args:
        tile: Index of the tile; tiles are counted row by row through each level, level after level.
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
    """Priors in places of a tile, and whether there is one: both have the shape of ``place``. The rest as
    :func:`find_cells` returns it.
    """
    column = place % WIDTH
    p = origin + place // WIDTH * width + column
    return p, (column < left) & (p < end)


@triton.jit
def of_image(slots_ptr, tiles_ptr, image, num_tiles, PLANES: tl.constexpr, TILE: tl.constexpr):
    """The slots and the summaries of an image (int64)."""
    slots_ptr += image * num_tiles * (PLANES * TILE)
    tiles_ptr += image * (tl.cdiv(num_tiles, const.GROUP) * const.SUMMARY * const.GROUP)
    return slots_ptr, tiles_ptr


@triton.jit
def slot_at(slot, PLANES: tl.constexpr, TILE: tl.constexpr):
    """Offset of the first plane of slots in [T, PLANES, TILE]; the others follow TILE apart."""
    return slot // TILE * (PLANES * TILE) + slot % TILE


@triton.jit
def summary_at(tile):
    """Offset of the first plane of tiles in [T / GROUP, SUMMARY, GROUP]; the others follow GROUP apart."""
    return (tile & -const.GROUP) * (const.SUMMARY - 1) + tile


@triton.jit
def load_four(pointer, STEP: tl.constexpr):
    """Four planes STEP apart: a box, or a point and its strides."""
    return tl.load(pointer), tl.load(pointer + STEP), tl.load(pointer + 2 * STEP), tl.load(pointer + 3 * STEP)


@triton.jit
def store_four(pointer, x1, y1, x2, y2, STEP: tl.constexpr):
    """The inverse of :func:`load_four`."""
    tl.store(pointer, x1)
    tl.store(pointer + STEP, y1)
    tl.store(pointer + 2 * STEP, x2)
    tl.store(pointer + 3 * STEP, y2)


@triton.jit
def find_column(tile, image, label, cls, LAYOUT: tl.constexpr):
    """An image's logits of a class on the level of a tile: pointer such that prior p lies at pointer + p *
    stride_p.

    Args:
        tile: Index of the tile.
        image: Index of the image, int64.
        label: The class, int64.
        cls: starts, first_tiles, levels, strides of images, priors and classes, as :func:`find_cells` and
            ``levels.find_logits`` take them.
        LAYOUT: See ``levels.find_logits``.

    Returns:
        pointer, stride_p.
    """
    # scheduling hint: every level's pointer is formed, and one is chosen, so that the former leaves the loop
    # over tiles, in which the choice is all that is left
    starts, first_tiles, levels, strides_b, strides_p, strides_c = cls
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


@triton.jit
def find_logits_of_tile(tile, image, cls, LAYOUT: tl.constexpr):
    """An image's logits on the level of a tile, as ``levels.find_logits`` returns them; the rest as
    :func:`find_column` takes it.
    """
    starts, first_tiles, levels, strides_b, strides_p, strides_c = cls
    level, level_start = find_level(tile, starts, first_tiles, len(levels))
    return find_logits(level, image, level_start, levels, strides_b, strides_p, strides_c, LAYOUT, False)
