"""Which gts and priors take part, and the priors near each gt."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import terms
from ...config import SimOTAConfig
from ...problem import Problem
from ..gts import Gts, blocks
from .grid import Levels


def mark_candidates(
    problem: Problem, config: SimOTAConfig, gts: Gts, levels: Levels | None, out: Tensor
) -> None:
    """Write 1 into ``out`` [B, P] where the prior lies in the candidate region of a gt of the image, else
    0.
    """
    batch, num_priors, _ = problem.shape
    device = gts.boxes.device
    if config.candidate == "all":
        counts = torch.tensor(gts.starts, dtype=torch.int64, device=device).diff()
        out.copy_((counts > 0)[:, None])
        return
    if levels is None:
        found = torch.zeros((batch, num_priors), dtype=torch.bool, device=device)
        for image, rows in gts.blocks(slice(0, gts.starts[-1]), num_priors):
            boxes, centers = gts.boxes[rows, None], gts.centers[rows, None]
            found[image] |= terms.in_region(
                problem.priors, boxes, centers, config.candidate, config.center_radius
            ).any(0)
        out.copy_(found)
        return
    count = torch.zeros(
        (batch, levels.rows.shape[0], levels.columns.shape[0]), dtype=torch.float32, device=device
    )
    for rows in blocks(0, gts.starts[-1], levels.columns.shape[0]):
        own = [
            len(range(max(start, rows.start), min(stop, rows.stop))) for start, stop in pairwise(gts.starts)
        ]
        for x, y in levels.depths(gts.boxes[rows], gts.centers[rows], config):
            hits = (y > 0).float().t().split(own, 1), (x > 0).float().split(own)
            for total, along_y, along_x in zip(count, *hits, strict=True):
                total.addmm_(along_y, along_x)
    for level in levels.levels:
        cells = count[:, level.rows, level.columns]
        torch.clamp(cells, max=1, out=out[:, level.priors].view(cells.shape))


def near_priors(
    problem: Problem, gts: Gts, levels: Levels | None, rows: slice, radius: float
) -> tuple[Tensor, Tensor]:
    """Priors of its image within ``radius`` strides of each gt's centre along both axes, and some more: [g,
    w], P or more for none; and their distances in strides, [g, w], see :meth:`Levels.window`.
    """
    if levels is not None:
        return levels.window(gts.centers[rows], radius)
    priors, found, distances = problem.priors, [], []
    for part in blocks(rows.start, rows.stop, priors.shape[0]):
        centers = gts.centers[part, None]
        close = (
            (priors[:, :2] - centers).abs_() <= 1.001 * radius * priors[:, 2:].amax(1, keepdim=True)
        ).all(2)
        width = max(1, int(close.sum(1).max()))
        order = close.byte().argsort(dim=1, descending=True, stable=True)[:, :width]
        distances.append(terms.center_distance(priors[order], centers))
        found.append(order.masked_fill_(~close.gather(1, order), priors.shape[0]))
    width = max(part.shape[1] for part in found)
    near, distance = (
        torch.cat([F.pad(part, (0, width - part.shape[1]), value=value) for part in parts])
        for parts, value in ((found, priors.shape[0]), (distances, 0.0))
    )
    return near, distance


def usable_mask(problem: Problem, all_classes: bool) -> Tensor:
    """[B, P] bool: priors that take part; where all classes count, all of their logits are finite."""
    usable = problem.usable_priors()
    if all_classes:
        usable = usable & torch.cat(
            [level.float().isfinite().all(2) for level in problem.cls_logits.levels], dim=1
        )
    return usable
