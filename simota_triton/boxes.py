"""Boxes: formats, areas, IoU and GIoU. Everything inside the package is xyxy in the priors' units
(pixels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import fail, shape_of, tensor

BOX_FORMATS = ("xyxy", "xywh", "cxcywh")

ROTATED = 5
"""Numbers of a rotated box: centre, size along its own axes, and the angle of the first of them in
radians.
"""

SMALLEST = torch.finfo(torch.float32).tiny
"""Smallest normal float32."""

IOU_ERROR = 1e-6
"""How far float32 rounding may move an IoU from that of float64."""


def convert_boxes(boxes: Tensor, source: str, target: str = "xyxy") -> Tensor:
    """Boxes in another format.

    Args:
        boxes: [..., 4], any floating dtype.
        source: ``"xyxy"`` corners, ``"xywh"`` upper left corner and size, ``"cxcywh"`` centre and size.
        target: As ``source``.

    Returns:
        [..., 4] of the same dtype.

    Raises:
        TypeError: ``boxes`` is no tensor.
        ValueError: Unknown format or a last dimension other than 4.

    Example:
        >>> convert_boxes(torch.tensor([10.0, 20.0, 4.0, 6.0]), "cxcywh")
        tensor([ 8., 17., 12., 23.])
    """
    for name, value in (("source", source), ("target", target)):
        if value not in BOX_FORMATS:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, BOX_FORMATS))}, got {value!r}")
    _check("boxes", boxes)
    if source == target:
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if source == "xywh":
        first, second = first, first + second
    elif source == "cxcywh":
        first, second = first - second / 2, first + second / 2
    if target == "xywh":
        first, second = first, second - first
    elif target == "cxcywh":
        first, second = (first + second) / 2, second - first
    return torch.cat([first, second], dim=-1)


def _check(name: str, boxes: Tensor) -> None:
    """Refuse what is no tensor of boxes."""
    tensor(name, boxes)
    if boxes.shape[-1:] != (4,):
        fail(name, "[..., 4]", shape_of(boxes), "")


def box_center(boxes: Tensor) -> Tensor:
    """Centres of xyxy boxes [..., 4], or of rotated ones [..., 5], [..., 2]."""
    if boxes.shape[-1] == ROTATED:
        return boxes[..., :2]
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def box_area(boxes: Tensor) -> Tensor:
    """Areas of xyxy boxes [..., 4], or of rotated ones [..., 5], [...]; an inverted box has none."""
    rotated = boxes.shape[-1] == ROTATED
    size = (boxes[..., 2:4] if rotated else boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def guard(area: Tensor, rule: str, eps: float) -> Tensor:
    """An area that something is divided by, in place: ``"none"`` as it is, ``"add"`` eps to it, ``"max"`` of
    it and eps.

    It is kept positive in every case, so that 0 / 0 is 0.
    """
    if rule == "add":
        area = area.add_(eps)
    return area.clamp_(min=max(eps, SMALLEST) if rule == "max" else SMALLEST)


def intersection(boxes: Tensor, others: Tensor, work: Tensor | None = None, dim: int = -1) -> Tensor:
    """Area shared by broadcast xyxy boxes, [..., 4], [..., 4] -> [...]; formed in ``work`` [3, ...] if given,
    and its first. The corners are along ``dim``.
    """
    x1, y1, x2, y2 = boxes.unbind(dim)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(dim)
    along_x, along_y, spare = (None, None, None) if work is None else work.unbind(0)
    return _overlap(x1, x2, other_x1, other_x2, along_x, spare).mul_(
        _overlap(y1, y2, other_y1, other_y2, along_y, spare)
    )


def intersection_and_union(
    boxes: Tensor, others: Tensor, rule: str = "none", eps: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Intersection and guarded union of broadcast xyxy boxes: [..., 4], [..., 4] -> [...], [...]."""
    inter = intersection(boxes, others)
    return inter, guard((box_area(boxes) + box_area(others)).sub_(inter), rule, eps)


def _overlap(
    low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor, out: Tensor | None, spare: Tensor | None
) -> Tensor:
    return (
        torch.minimum(high, other_high, out=out).sub_(torch.maximum(low, other_low, out=spare)).clamp_(min=0)
    )


def _corners(name: str, boxes: Tensor, box_format: str) -> Tensor:
    _check(name, boxes)
    return convert_boxes(
        boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes, box_format
    )


def box_iou(
    boxes: Tensor, others: Tensor, box_format: str = "xyxy", *, rule: str = "none", eps: float = 0.0
) -> Tensor:
    """IoU of broadcast boxes; exactly 1 for identical ones, 0 where they do not overlap (0/0 included).

    Args:
        boxes: [..., 4]. float16 and bfloat16 are computed in float32: a half overflows at an area of 256 x
            256.
        others: [..., 4], broadcast against ``boxes``: pass ``boxes[:, None]`` and ``others[None]`` for all
            pairs.
        box_format: ``"xyxy"``, ``"xywh"`` (upper left corner and size) or ``"cxcywh"``.
        rule: Guard of the union, see :func:`guard`.
        eps: See ``rule``.

    Returns:
        [...] IoU in [0, 1].

    Example:
        >>> box_iou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 2.0, 2.0]), "xywh")
        tensor(0.3333)
    """
    boxes, others = _corners("boxes", boxes, box_format), _corners("others", others, box_format)
    inter, union = intersection_and_union(boxes, others, rule, eps)
    return inter / union


def box_giou(
    boxes: Tensor, others: Tensor, box_format: str = "xyxy", *, rule: str = "none", eps: float = 0.0
) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019): IoU - (enclosing - union) / enclosing. Arguments as
    :func:`box_iou`.

    Example:
        >>> box_giou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 4.0, 1.0]))
        tensor(-0.5000)
    """
    boxes, others = _corners("boxes", boxes, box_format), _corners("others", others, box_format)
    inter, union = intersection_and_union(boxes, others, rule, eps)
    left, top = (torch.minimum(boxes[..., i], others[..., i]) for i in (0, 1))
    right, bottom = (torch.maximum(boxes[..., i], others[..., i]) for i in (2, 3))
    enclosing = guard((right - left).clamp(min=0) * (bottom - top).clamp(min=0), rule, eps)
    return inter / union - (enclosing - union) / enclosing


def box_ciou(boxes: Tensor, others: Tensor, box_format: str = "xyxy", *, eps: float = 1e-7) -> Tensor:
    """Complete IoU (Zheng et al., AAAI 2020) of broadcast boxes, in the form of Ultralytics'
    ``utils/metrics.py`` bbox_iou::

        CIoU = IoU - (rho^2 / c^2 + a * v)
        v    = 4 / pi^2 * (atan(w / h) - atan(w' / h'))^2
        a    = v / (1 - IoU + v + eps)

    with the distance rho of the centres, the diagonal c of the enclosing box, and eps added to heights, to
    the union and to c^2. It is at most the IoU. Boxes that do not overlap have 0 here, which is what
    clamping makes of it.

    Args:
        boxes: [..., 4], as of :func:`box_iou`.
        others: [..., 4], broadcast against ``boxes``.
        box_format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        eps: See above.

    Returns:
        [...] CIoU, from below 0 to 1.

    Example:
        >>> box_ciou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0]))
        tensor(0.2564)
    """
    boxes, others = _corners("boxes", boxes, box_format), _corners("others", others, box_format)
    x1, y1, x2, y2 = boxes.unbind(-1)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(-1)
    width, height = x2 - x1, y2 - y1 + eps
    other_width, other_height = other_x2 - other_x1, other_y2 - other_y1 + eps
    inter = intersection(boxes, others)
    iou = inter / (width * height + other_width * other_height - inter + eps)
    enclosing_width = torch.maximum(x2, other_x2) - torch.minimum(x1, other_x1)
    enclosing_height = torch.maximum(y2, other_y2) - torch.minimum(y1, other_y1)
    diagonal = enclosing_width.square() + enclosing_height.square() + eps
    distance = ((other_x1 + other_x2 - x1 - x2).square() + (other_y1 + other_y2 - y1 - y2).square()) / 4
    angles = torch.atan(other_width / other_height) - torch.atan(width / height)
    v = (4 / math.pi**2) * angles.square()
    penalty = distance / diagonal + v * (v / (1 - iou + v + eps))
    return torch.where(inter > 0, iou - penalty, 0.0)
