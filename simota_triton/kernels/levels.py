"""Where things lie: a tile of priors, its boxes and logits, a row of the matrices. Levels are read in place,
and a tile never straddles two of them. Offsets are 64 bit before anything is multiplied by a stride.
"""

import triton
import triton.language as tl

from .maths import box_area, finite


@triton.jit
def decode(code, ALIGNED: tl.constexpr):
    """An integer of a tuple argument, see ``host.codes``; a multiple of 4 where ``ALIGNED``."""
    value = (code - 3) >> 1
    if ALIGNED:
        value = tl.multiple_of(value, 4)
    return value


@triton.jit
def find_tile(tile, starts, TILE: tl.constexpr, ALIGNED: tl.constexpr):
    """Level of a tile, its first prior, and the end of its level.

    Args:
        tile: Index of the tile; tiles count through the levels.
        starts: First prior of each level, and P, coded.
        TILE: Priors a tile.
        ALIGNED: Every start and P is a multiple of 4.

    Returns:
        level, level_start, first, end.
    """
    level = 0
    start = decode(starts[0], ALIGNED)
    end = decode(starts[1], ALIGNED)
    for i in tl.static_range(1, len(starts) - 1):
        tiles = tl.cdiv(end - start, TILE)
        if (level == i - 1) & (tile >= tiles):
            tile -= tiles
            level = i
            start = end
            end = decode(starts[i + 1], ALIGNED)
    return level, start, start + tile * TILE, end


@triton.jit
def find_logits(
    level,
    image,
    level_start,
    levels,
    strides_b,
    strides_p,
    strides_c,
    LAYOUT: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """An image's logits on a level: pointer such that prior p and class c lie at pointer + p * stride_p + c *
    stride_c.

    Args:
        level: Index of the level.
        image: Index of the image, int64.
        level_start: The level's first prior.
        levels: Pointers to the levels.
        strides_b: Stride of the images of each level, coded; ``strides_p`` and ``strides_c`` those of priors
            and classes.
        LAYOUT: ``"priors"`` where stride_p is 1 (a head's maps), ``"classes"`` where stride_c is 1, or
            ``"any"``.
        ALIGNED: Every stride that is not 1 is a multiple of 4, every pointer aligned to 4 elements.

    Returns:
        pointer, stride_p, stride_c; int64 strides.
    """
    pointer = levels[0] + image * decode(strides_b[0], ALIGNED)
    stride_p = decode(strides_p[0], ALIGNED).to(tl.int64)
    stride_c = decode(strides_c[0], ALIGNED).to(tl.int64)
    for i in tl.static_range(1, len(levels)):
        if level == i:
            pointer = levels[i] + image * decode(strides_b[i], ALIGNED)
            stride_p = decode(strides_p[i], ALIGNED).to(tl.int64)
            stride_c = decode(strides_c[i], ALIGNED).to(tl.int64)
    if LAYOUT == "priors":
        return pointer - level_start, 1, stride_c
    elif LAYOUT == "classes":
        return pointer - level_start * stride_p, stride_p, 1
    else:
        return pointer - level_start * stride_p, stride_p, stride_c


@triton.jit
def load_priors(priors_ptr, boxes_ptr, image, p, mask, box_stride_b, box_stride_p, box_stride_c):
    """Points x, y and strides x, y of priors, and the corners x1, y1, x2, y2 of their boxes in an image;
    float32. Empty boxes where masked.
    """
    x = tl.load(priors_ptr + p * 4, mask=mask, other=0.0)
    y = tl.load(priors_ptr + p * 4 + 1, mask=mask, other=0.0)
    stride_x = tl.load(priors_ptr + p * 4 + 2, mask=mask, other=1.0)
    stride_y = tl.load(priors_ptr + p * 4 + 3, mask=mask, other=1.0)
    corner = boxes_ptr + image * box_stride_b + p.to(tl.int64) * box_stride_p
    step = box_stride_c.to(tl.int64)
    x1 = tl.load(corner, mask=mask, other=0.0).to(tl.float32)
    y1 = tl.load(corner + step, mask=mask, other=0.0).to(tl.float32)
    x2 = tl.load(corner + 2 * step, mask=mask, other=0.0).to(tl.float32)
    y2 = tl.load(corner + 3 * step, mask=mask, other=0.0).to(tl.float32)
    return x, y, stride_x, stride_y, x1, y1, x2, y2


@triton.jit
def usable_priors(x, y, stride_x, stride_y, x1, y1, x2, y2):
    """Whether priors and their boxes are finite, the boxes' areas too, and the strides above 0. Twin:
    ``Problem.usable_priors``.
    """
    usable = finite(x1) & finite(y1) & finite(x2) & finite(y2) & finite(box_area(x1, y1, x2, y2))
    return (
        usable
        & finite(x)
        & finite(y)
        & finite(stride_x)
        & finite(stride_y)
        & (stride_x > 0.0)
        & (stride_y > 0.0)
    )


@triton.jit
def matrix_row(image, g, G, P):
    """Offset of the row of gt g of an image (int64) in a [B, G, P] matrix."""
    return (image * G + g) * P
