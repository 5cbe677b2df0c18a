"""Rotated boxes (cx, cy, w, h, angle): the frame of a box, and ProbIoU.

The angle is in radians, from the x axis to the box's first side, towards the y axis. Nothing is asked of its
range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import ROTATED
from .checks import fail, shape_of, tensor

MAX_DISTANCE = 100.0
"""Largest Bhattacharyya distance that counts; further apart, ProbIoU is 0 in any case."""


def in_frame(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Where points lie along both sides of rotated boxes, from their centres: [..., 2 or more], [..., 5] ->
    [...] twice.
    """
    x, y = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    return x * cos + y * sin, y * cos - x * sin


def box_probiou(boxes: Tensor, others: Tensor, *, eps: float = 1e-7) -> Tensor:
    """ProbIoU (Llerena et al., arXiv 2106.06072) of broadcast rotated boxes, 1 minus the Hellinger distance
    of their Gaussians, in the form of Ultralytics' ``utils/metrics.py`` probiou::

        ProbIoU = 1 - sqrt(1 - exp(-distance) + eps)

    where ``distance`` is that of Bhattacharyya, clamped to [eps, 100], of Gaussians with variances w^2 / 12
    and h^2 / 12 along the sides. With S and S' their covariances and d the offset of their centres::

        distance = d^T (S + S')^-1 d / 4 + log(det(S + S') / (4 * sqrt(det S * det S') + eps) + eps) / 2

    and eps is added to the determinant that the first term divides by. All is formed from sums of squares
    along the boxes' own sides and the sine of the angle between them: thin boxes lose no digits, as they do
    where determinants are differences.

    Args:
        boxes: [..., 5] (cx, cy, w, h, angle in radians). float16 and bfloat16 are computed in float32.
        others: [..., 5], broadcast against ``boxes``.
        eps: See above.

    Returns:
        [...], from 0 to 1 - sqrt(2 * eps), which identical boxes have.

    Raises:
        TypeError: An argument is no tensor.
        ValueError: An argument has another last dimension than 5.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 8.0, 4.0, 0.0])
        >>> box_probiou(box, torch.tensor([1.0, 0.0, 8.0, 4.0, 0.5]))
        tensor(0.7087)
    """
    boxes, others = _checked("boxes", boxes), _checked("others", others)
    spread, other_spread = boxes[..., 2:4].square() / 12, others[..., 2:4].square() / 12
    along, across = spread.unbind(-1)
    other_along, other_across = other_spread.unbind(-1)
    turn = (boxes[..., 4] - others[..., 4]).sin().square()
    determinant = (
        along * across
        + other_along * other_across
        + (along * other_along + across * other_across) * turn
        + (along * other_across + across * other_along) * (1 - turn)
    )
    x, y = in_frame(others, boxes)
    other_x, other_y = in_frame(boxes, others)
    apart = along * y.square() + across * x.square()
    apart = apart + (other_along * other_y.square() + other_across * other_x.square())
    volume = (boxes[..., 2] * boxes[..., 3]).abs() * (others[..., 2] * others[..., 3]).abs() / 36
    shape = (determinant / (volume + eps) + eps).log() / 2
    distance = (apart / (determinant + eps) / 4 + shape).clamp(eps, MAX_DISTANCE)
    return 1 - (eps - torch.expm1(-distance)).sqrt()


def _checked(name: str, boxes: Tensor) -> Tensor:
    """Rotated boxes in float32 or float64."""
    tensor(name, boxes)
    if boxes.shape[-1:] != (ROTATED,):
        fail(name, "[..., 5], (cx, cy, w, h, angle in radians)", shape_of(boxes), "")
    return boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes
