"""Empty batches that kernels are compiled for by :mod:`simota_triton.measure.compiling`, without a GPU."""

from __future__ import annotations

from typing import Any

import torch

from simota_triton.config import SimOTAConfig
from simota_triton.inputs import pack
from simota_triton.problem import Problem


def problem(
    config: SimOTAConfig,
    layout: str = "maps",
    dtype: torch.dtype = torch.float32,
    cells: tuple[int, ...] = (80, 40, 20),
    channels: int = 80,
    num_gts: int = 4,
) -> Problem:
    """A batch of one image without meaningful values: compilation looks only at shapes, strides and dtypes.

    Args:
        config: The configuration.
        layout: Of the logits: ``"maps"``, a list of [B, C, H, W]; ``"flat"``, [B, P, C]; ``"strided"``, [B,
            P, C] with gaps.
        dtype: Of the logits.
        cells: Cells along each side of each level's grid.
        channels: C.
        num_gts: G.
    """
    num_priors = sum(side * side for side in cells)

    def logits(channels: int) -> Any:
        if layout == "maps":
            return [torch.zeros(1, channels, side, side, dtype=dtype) for side in cells]
        if layout == "flat":
            return torch.zeros(1, num_priors, channels, dtype=dtype)
        return torch.zeros(1, channels, 2 * num_priors, dtype=dtype)[:, :, ::2].transpose(1, 2)

    return pack(
        config,
        pred_boxes=torch.zeros(1, num_priors, 4),
        cls_logits=logits(channels),
        priors=torch.ones(num_priors, 4),
        gt_boxes=torch.zeros(1, num_gts, 4),
        gt_labels=torch.zeros(1, num_gts, dtype=torch.int64),
        gt_mask=torch.ones(1, num_gts, dtype=torch.bool),
        obj_logits=logits(1) if config.score == "joint" else None,
        validate=False,
    )
