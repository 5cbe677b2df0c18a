"""Shapes that share a measured configuration."""

from __future__ import annotations

from .kernel_config import Shape


def bucket(shape: Shape) -> str:
    """The bucket of a shape: each size up to the next power of two.

    Example:
        >>> bucket(Shape(batch=32, num_priors=8400, num_gts=40))
        'b32-p16384-g64'
    """
    batch, num_priors, num_gts = (1 << max(size - 1, 0).bit_length() for size in shape)
    return f"b{batch}-p{num_priors}-g{num_gts}"
