"""The order in which a gt visits tiles: the most promising first, in one int32 key a tile.

A key holds the bits of a non-negative float32, which are ordered like the number, with the tile's index among
BOUNDS in place of the last bits. So the next visit is a minimum of integers, one instruction on a warp, ties
are decided, and as soon as the next tile cannot matter, none of the others can.

What a tile is ranked by is a bound, plus a share of NEARER that grows with the distance: among tiles of
(nearly) the same bound the nearest goes first, since what fills the lists early is what prunes.
"""

import triton
import triton.language as tl

from .. import constants as const


@triton.jit
def nearer(distance_squared, unit_squared):
    """What a distance adds to a bound, times a square of 1 / unit: beyond 32 units all tiles are far."""
    return tl.minimum(distance_squared * (unit_squared * (const.NEARER / 1024.0)), const.NEARER)


@triton.jit
def order(rank, alive, BOUNDS: tl.constexpr):
    """Keys of tiles by ``rank`` >= 0, a bound and :func:`nearer`, [BOUNDS]; those not ``alive`` are never
    visited.
    """
    key = (rank.to(tl.int32, bitcast=True) & (-BOUNDS)) | tl.arange(0, BOUNDS)
    return tl.where(alive, key, const.NONE)


@triton.jit
def least_bound(key, BOUNDS: tl.constexpr):
    """A lower bound of what this tile and all that come after it are ranked by; NaN of NONE."""
    return (key & (-BOUNDS)).to(tl.float32, bitcast=True) - const.NEARER


@triton.jit
def index_of(key, BOUNDS: tl.constexpr):
    """Index of the tile of a key."""
    return key & (BOUNDS - 1)


@triton.jit
def without(waiting, key):
    """Keys but this one."""
    return tl.where(waiting == key, const.NONE, waiting)
