"""Priors that are level after level of regular cells: regions are tested on columns and rows alone, windows
are index arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ... import terms
from ...config import SimOTAConfig
from ...matching import has_float64

MAX_LEVELS = 16
"""Priors whose strides change more often are not taken for levels."""

MARGIN = 0.01
"""Strides that windows are wider than asked for, which covers rounding."""

DRIFT = 1e-5
"""Strides that a cell may lie off its index times the stride."""

SLACK = 1e-4
"""Strides that distances, which are taken from indices, may be too large by: the drift of a cell and
rounding.
"""

OUTSIDE = 1 << 40
"""Added to lines that a level does not have: the index of their cells is then larger than any prior's."""


class Level(NamedTuple):
    """Where a level's columns, rows and priors are among those of all levels."""

    columns: slice
    rows: slice
    priors: slice


class Levels(NamedTuple):
    """The levels of some priors.

    Attributes:
        levels: Each level.
        columns: [W of all levels, 2], position and stride of each column.
        rows: [H of all levels, 2], position and stride of each row.
        first: [L, 3] float64, position of each level's first prior, and its stride.
        shape: [L, 3] int64, columns and rows of each level, index of its first prior.
    """

    levels: list[Level]
    columns: Tensor
    rows: Tensor
    first: Tensor
    shape: Tensor

    @staticmethod
    def of(priors: Tensor) -> Levels | None:
        """The levels of priors [P, 4], row-major each, or None where they are no such grids of square cells,
        or where there is no float64 to place gts among far cells with.
        """
        if not has_float64(priors.device):
            return None
        changes = (priors[1:, 2] != priors[:-1, 2]).nonzero().squeeze(1).tolist()
        if len(changes) >= MAX_LEVELS or not priors.shape[0]:
            return None
        levels, columns, rows, first, shape = [], [], [], [], []
        regular = torch.empty_like(priors)
        left = top = 0
        for start, stop in pairwise([0, *(i + 1 for i in changes), priors.shape[0]]):
            x, y, stride, _ = priors[start].tolist()
            width = int((priors[start:stop, 1] == y).sum())
            if not width or (stop - start) % width or not stride > 0:
                return None
            height = (stop - start) // width
            cells = regular[start:stop].view(height, width, 4)
            cells[..., 0] = torch.arange(width, dtype=torch.float32, device=priors.device) * stride + x
            cells[..., 1] = (torch.arange(height, dtype=torch.float32, device=priors.device) * stride + y)[
                :, None
            ]
            cells[..., 2:] = stride
            for line, low in ((cells[0, :, 0], x), (cells[:, 0, 1], y)):
                drift = line.double() - (
                    torch.arange(line.shape[0], dtype=torch.float64, device=line.device) * stride + low
                )
                if not bool((drift.abs() <= DRIFT * stride).all()):
                    return None
            columns.append(cells[0, :, ::2])
            rows.append(cells[:, 0, 1::2])
            levels.append(Level(slice(left, left + width), slice(top, top + height), slice(start, stop)))
            first.append((x, y, stride))
            shape.append((width, height, start))
            left, top = left + width, top + height
        if not torch.equal(regular, priors):
            return None
        device = priors.device
        first_prior = torch.tensor(first, dtype=torch.float64, device=device)
        return Levels(
            levels,
            torch.cat(columns),
            torch.cat(rows),
            first_prior,
            torch.tensor(shape, dtype=torch.int64, device=device),
        )

    def depths(self, boxes: Tensor, centers: Tensor, config: SimOTAConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """How deep gts [g, 4] and [g, 2] hold the columns and the rows, [g, W] and [g, H]: for each box that
        the candidate region is a union of.
        """
        boxes, centers = boxes[..., None], centers[..., None]
        region = config.candidate, config.center_radius
        along = (
            terms.region_depths(
                lines[:, 0], lines[:, 1], boxes[:, i], boxes[:, 2 + i], centers[:, i], *region
            )
            for i, lines in enumerate((self.columns, self.rows))
        )
        return zip(*along, strict=True)

    def window(self, centers: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """Priors within ``radius`` strides of points [g, 2] along both axes, and some more: [g, w], P or more
        for none; and their distances in strides, [g, w], to ``SLACK``.
        """
        size, start = self.shape[:, :2], self.shape[:, 2:]
        radius += MARGIN
        offset = (centers.double()[:, None] - self.first[:, :2]) / self.first[:, 2:]  # [g, L, 2]
        low = (offset - radius).ceil().clamp(-1e9, 1e9).long()
        line = low[..., None] + torch.arange(
            math.floor(2 * radius) + 1, dtype=torch.int64, device=low.device
        )  # [g, L, 2, w]
        along_x, along_y = (line - offset[..., None]).float().square().unbind(2)
        distance = (along_y[..., None] + along_x[:, :, None]).sqrt()  # [g, L, w, w]
        line += OUTSIDE * ((line < 0) | (line >= size[..., None]))
        column, row = line.unbind(2)
        return ((row * size[:, :1] + start)[..., None] + column[:, :, None]).flatten(1), distance.flatten(1)
