"""The order in which a gt visits tiles: nearest first, in one int32 key a tile.

A key holds the bits of a non-negative float32 distance, which are ordered like the number, with the tile's index among BOUNDS in
place of the last bits. So the next visit is a minimum of integers, one instruction on a warp, and ties are decided.
"""

import triton
import triton.language as tl

NONE = tl.constexpr(0x7FFFFFFF)
"""Above every key."""

LANES = tl.constexpr(32)
"""Entries of a gt's lists, one a lane of its warp."""


@triton.jit
def order(distance, alive, BOUNDS: tl.constexpr):
    """Keys of tiles at ``distance`` >= 0, [BOUNDS]; those not ``alive`` are never visited."""
    key = (distance.to(tl.int32, bitcast=True) & (-BOUNDS)) | tl.arange(0, BOUNDS)
    return tl.where(alive, key, NONE)


@triton.jit
def first_visit(waiting):
    """The key of the nearest tile, NONE where none is left."""
    return tl.min(waiting)


@triton.jit
def index_of(key, BOUNDS: tl.constexpr):
    """Index of the tile of a key."""
    return key & (BOUNDS - 1)


@triton.jit
def without(waiting, key):
    """Keys but this one."""
    return tl.where(waiting == key, NONE, waiting)


@triton.jit
def drop(waiting, which):
    """Keys but those of these tiles."""
    return tl.where(which, NONE, waiting)
