"""Centres of instance masks, which RTMDet-Ins uses in place of box centres."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import box_center
from .checks import tensor

BLOCK = 16
"""Masks reduced at a time: torch's CPU reduction casts its input, so this bounds the float32 copy."""


def mask_centers(masks: Tensor, gt_boxes: Tensor) -> Tensor:
    """Centre of mass of each instance mask, in pixels: the mean column and row index, without half a pixel
    added.

    The rule is mmdet 3.3.0's ``center_of_mass`` (``dynamic_soft_label_assigner.py``), taken from the mask's
    row and column sums, so that no grid and no int64 copy of the masks is formed. An empty mask (no mass)
    falls back to the centre of its box, where mmdet gives (0, 0).

    Args:
        masks: [G, H, W] bool, uint8 or floating; weights are counted.
        gt_boxes: [G, 4] xyxy pixels, for the fallback.

    Returns:
        [G, 2] float32 x, y: pass it as ``gt_centers``.

    Raises:
        TypeError: An argument is no tensor.
        ValueError: Shape or dtype.

    Example:
        >>> masks = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> masks[0, 2:5, 4:7] = True
        >>> mask_centers(masks, torch.tensor([[4.0, 2.0, 7.0, 5.0]]))
        tensor([[5., 3.]])
    """
    for name, value in (("masks", masks), ("gt_boxes", gt_boxes)):
        tensor(name, value)
    if masks.ndim != 3:
        raise ValueError(f"masks: expected [G, H, W], got {list(masks.shape)}")
    if not (masks.dtype in (torch.bool, torch.uint8) or masks.is_floating_point()):
        raise ValueError(
            f"masks: expected bool, uint8 or a floating dtype, got {masks.dtype}; use masks.bool()"
        )
    if gt_boxes.shape != (masks.shape[0], 4):
        raise ValueError(f"gt_boxes: expected [G, 4] = [{masks.shape[0]}, 4], got {list(gt_boxes.shape)}")
    blocks = masks.split(BLOCK)
    columns = torch.cat([block.sum(1, dtype=torch.float32) for block in blocks])  # [G, W]
    rows = torch.cat([block.sum(2, dtype=torch.float32) for block in blocks])  # [G, H]
    x = (columns * torch.arange(masks.shape[2], dtype=torch.float32, device=masks.device)).sum(1)
    y = (rows * torch.arange(masks.shape[1], dtype=torch.float32, device=masks.device)).sum(1)
    mass = columns.sum(1)
    return torch.where(
        mass[:, None] > 0, torch.stack([x, y], 1) / mass[:, None], box_center(gt_boxes.float())
    )
