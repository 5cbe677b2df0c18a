"""The order in which a gt visits tiles: the most promising first, in one int32 key a tile.

A key holds the bits of a non-negative float32, which are ordered like the number, with the tile's index among
BOUNDS tiles in place of the last bits::

    key = (bits of the rank, the last log2(BOUNDS) of them cleared) | index

So the next visit is a minimum of integers, one instruction on a warp, ties are decided, and as soon as the
next tile cannot matter, none of the others can.

A tile's rank is a bound, plus a share of NEARER that grows with the distance: among tiles of (nearly) the
same bound the nearest goes first, since a list that is filled early with good priors prunes most.
"""

import triton
import triton.language as tl

from .. import constants as const


@triton.jit
def nearer(distance_squared, per_unit_squared):
    """What is added to a bound for a distance: it grows with the square, up to NEARER at 32 units.
    ``per_unit_squared`` is 1 / unit^2.
    """
    return tl.minimum(distance_squared * (per_unit_squared * (const.NEARER / 1024.0)), const.NEARER)


@triton.jit
def nearer_boxes(middle_x, middle_y, cx, cy, per_area):
    """:func:`nearer` for the distance from a gt to the small boxes of tiles.

    Args:
        middle_x, middle_y: Twice the centres of these, see ``bounds.tile_iou``.
        cx, cy: Centre of the gt.
        per_area: 1 / its area.
    """
    dx, dy = middle_x - 2.0 * cx, middle_y - 2.0 * cy
    return nearer(tl.fma(dx, dx, dy * dy), 0.25 * per_area)


@triton.jit
def keys_of_tiles(rank, visited, BOUNDS: tl.constexpr):
    """Keys of tiles, [BOUNDS] int32.

    Args:
        rank: [BOUNDS] float32 >= 0, a bound and :func:`nearer`.
        visited: [BOUNDS], whether a tile is visited at all.
        BOUNDS: How many tiles are ranked together, a power of two.
    """
    key = (rank.to(tl.int32, bitcast=True) & (-BOUNDS)) | tl.arange(0, BOUNDS)
    return tl.where(visited, key, const.NONE)


@triton.jit
def least_bound(key, BOUNDS: tl.constexpr):
    """A lower bound of the ranks of this tile and of all that come after it, without what the distance may
    have added; NaN of NONE.
    """
    return (key & (-BOUNDS)).to(tl.float32, bitcast=True) - const.NEARER


@triton.jit
def index_of(key, BOUNDS: tl.constexpr):
    """Index of the tile of a key."""
    return key & (BOUNDS - 1)


@triton.jit
def without(waiting, key):
    """Keys [BOUNDS] but this one."""
    return tl.where(waiting == key, const.NONE, waiting)
