"""Priors that are level after level of regular cells: regions are tested on columns and rows alone, windows are index arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .. import terms
from ..config import SimOTAConfig

MAX_LEVELS = 16
"""Priors whose strides change more often are not taken for levels."""

MARGIN = 0.01
"""Strides that windows are wider than asked for: covers rounding, and priors that lie off their cell by half of it."""


class Level(NamedTuple):
    """Where a level's priors, columns and rows are among those of all levels."""

    priors: slice
    columns: slice
    rows: slice


class Levels(NamedTuple):
    """The levels of some priors.

    Attributes:
        levels: Each level.
        columns: [W of all levels, 2], position and stride of each column.
        rows: [H of all levels, 2], position and stride of each row.
        first: [L, 3] float64, position of each level's first prior, and its stride.
        shape: [L, 3] int64, index of each level's first prior, its columns and its rows.
    """

    levels: list[Level]
    columns: Tensor
    rows: Tensor
    first: Tensor
    shape: Tensor

    @staticmethod
    def of(priors: Tensor) -> Levels | None:
        """The levels of priors [P, 4], row-major each, or None where they are no such grids of square cells."""
        changes = (priors[1:, 2] != priors[:-1, 2]).nonzero().squeeze(1).tolist()
        bounds = [0, *(i + 1 for i in changes), priors.shape[0]]
        if len(bounds) > MAX_LEVELS + 1 or not priors.shape[0]:
            return None
        levels: list[Level] = []
        columns, rows, regular = [], [], torch.empty_like(priors)
        left = top = 0
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            own = priors[start:stop]
            width = int((own[:, 1] == own[0, 1]).sum())
            if not width or (stop - start) % width:
                return None
            height = (stop - start) // width
            levels.append(Level(slice(start, stop), slice(left, left + width), slice(top, top + height)))
            left, top = left + width, top + height
            columns.append(own[:width, ::2])
            rows.append(own[::width, 1::2])
            cells = regular[start:stop].view(height, width, 4)
            cells[..., ::2], cells[..., 1::2] = columns[-1], rows[-1][:, None]
        first = priors[bounds[:-1], :3].double()
        shape = torch.tensor([(level.priors.start, _length(level.columns), _length(level.rows)) for level in levels], device=priors.device)
        found = Levels(levels, torch.cat(columns), torch.cat(rows), first, shape)
        return found if torch.equal(regular, priors) and found._evenly_spaced() else None

    def _evenly_spaced(self) -> bool:
        """Whether columns and rows are a stride apart and cells are square."""
        off = []
        for i, lines in enumerate((self.columns, self.rows)):
            size = self.shape[:, 1 + i]
            first, stride = (self.first[:, j].repeat_interleave(size) for j in (i, 2))
            step = torch.arange(lines.shape[0], device=lines.device) - (size.cumsum(0) - size).repeat_interleave(size)
            off += [(lines[:, 0] - first) / stride - step, (lines[:, 1] - stride) / stride]
        return bool((torch.cat(off).abs() <= MARGIN / 2).all())

    def depths(self, boxes: Tensor, centers: Tensor, config: SimOTAConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """For each box that the candidate region is a union of: how deep gts [g, 4] and [g, 2] hold the columns and the rows, [g, W], [g, H]."""
        boxes, centers = boxes[..., None], centers[..., None]
        along = (
            terms.region_depths(
                lines[:, 0], lines[:, 1], boxes[:, i], boxes[:, 2 + i], centers[:, i], config.candidate, config.center_radius
            )
            for i, lines in enumerate((self.columns, self.rows))
        )
        return zip(*along, strict=True)

    def width(self, radius: float) -> int:
        """Columns of a level's window."""
        return math.floor(2 * (radius + MARGIN)) + 1

    def window(self, centers: Tensor, radius: float) -> Tensor:
        """Priors that are within ``radius`` strides of points [g, 2] along both axes, and some more: [g, w], -1 for none."""
        start, size = self.shape[:, 0], self.shape[:, 1:]
        center = (centers.double()[:, None] - self.first[:, :2]) / self.first[:, 2:]  # [g, L, 2]
        low = (center - (radius + MARGIN)).ceil().clamp(-1e9, 1e9).long()
        line = low[..., None] + torch.arange(self.width(radius), device=low.device)  # [g, L, 2, w]
        inside = (line >= 0) & (line < size[:, :, None])
        column, row = line.unbind(2)
        prior = (row * size[:, :1] + start[:, None])[..., None] + column[:, :, None]
        return prior.masked_fill_(~(inside[:, :, 1, :, None] & inside[:, :, 0, None]), -1).flatten(1)


def _length(part: slice) -> int:
    return int(part.stop - part.start)
