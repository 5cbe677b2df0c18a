"""Priors that are grids, one after the other: those inside of a box are ranges of columns and rows."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

MAX_GRIDS = 16
"""Priors that take more grids than this to describe are not taken for grids."""


class Grids(NamedTuple):
    """Priors row by row, L grids one after the other.

    Attributes:
        lines: [2 * L, n] float32, the x of each grid's columns, then the y of each grid's rows, ascending and
            padded with +inf.
        first: [L] int64, each grid's first prior.
        width: [L] int64, the number of its columns.
    """

    lines: Tensor
    first: Tensor
    width: Tensor

    @staticmethod
    def of(priors: Tensor) -> Grids | None:
        """The grids of finite priors [P, 4], of which x and y count alone: any columns and rows that ascend.
        None where they form none.
        """
        x, y = priors[:, 0].contiguous(), priors[:, 1]
        ends = ((y[1:] != y[:-1]) | (x[1:] <= x[:-1])).nonzero().squeeze(1) + 1
        edges = torch.tensor([0, priors.shape[0]], dtype=torch.int64, device=x.device)
        start = torch.cat([edges[:1], ends])  # [R], the first prior of each row of a grid
        length = torch.cat([ends, edges[1:]]) - start
        # a row goes on with the grid of the row above it where it has the same columns
        place = torch.arange(x.shape[0], dtype=torch.int64, device=x.device)
        row = torch.repeat_interleave(length)
        above = (place - length.index_select(0, row)).clamp(min=0)
        moved = torch.zeros_like(length).index_add_(0, row, (x != x.index_select(0, above)).long())
        begins = torch.ones_like(moved, dtype=torch.bool)
        begins[1:] = (moved[1:] > 0) | (length[1:] != length[:-1]) | ~(y[start[1:]] > y[start[:-1]])
        first = begins.nonzero().squeeze(1)  # [L], the first row of each grid
        if first.shape[0] > MAX_GRIDS:
            return None
        rows = [slice(*pair) for pair in pairwise([*first.tolist(), length.shape[0]])]
        starts, lengths = start.tolist(), length.tolist()
        columns = [x[starts[own.start] : starts[own.start] + lengths[own.start]] for own in rows]
        lines = [*columns, *(y[start[own]] for own in rows)]
        return Grids(
            torch.nn.utils.rnn.pad_sequence(lines, batch_first=True, padding_value=torch.inf),
            start.index_select(0, first),
            length.index_select(0, first),
        )

    def pairs(self, boxes: Tensor, inclusive: bool, start: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs of boxes and priors inside of them, decided by comparisons of float32.

        Args:
            boxes: [g, 4] xyxy.
            inclusive: Whether a prior on an edge is inside.
            start: [g] int64, added to a box's priors.

        Returns:
            Box and prior, [n] int32 each, which take half the time of int64: box after box, of each its
            priors in ascending order.
        """
        grids, device = self.first.shape[0], boxes.device
        low, high = (corner.t().repeat_interleave(grids, 0) for corner in (boxes[:, :2], boxes[:, 2:]))
        begin = torch.searchsorted(self.lines, low, right=not inclusive)  # [2 * L, g]
        count = (torch.searchsorted(self.lines, high, right=inclusive) - begin).clamp_(min=0)
        column, line = begin.t().split(grids, 1)  # [g, L] each
        columns, rows = count.t().split(grids, 1)
        rows = rows.flatten()
        corner = (start[:, None] + self.first + line * self.width + column).flatten()

        # rows of grids within a box, r of them
        block = torch.repeat_interleave(rows)  # [r], box * L + grid
        step = torch.arange(block.shape[0], dtype=torch.int64, device=device)
        step -= (rows.cumsum(0) - rows).index_select(0, block)
        box, grid = block // grids, block % grids
        columns = columns.flatten().index_select(0, block)
        corner = corner.index_select(0, block) + step * self.width.index_select(0, grid)
        corner -= columns.cumsum(0) - columns

        # priors of those rows
        row = torch.repeat_interleave(columns.int())  # [n]
        prior = torch.arange(row.shape[0], dtype=torch.int32, device=device)
        return box.int().index_select(0, row), prior.add_(corner.int().index_select(0, row))

    def counts(self, boxes: Tensor) -> Tensor:
        """How many priors boxes [g, 4] hold, with those on the edges, [g]."""
        grids = self.first.shape[0]
        low, high = (corner.t().repeat_interleave(grids, 0) for corner in (boxes[:, :2], boxes[:, 2:]))
        count = torch.searchsorted(self.lines, high, right=True) - torch.searchsorted(self.lines, low)
        columns, rows = count.clamp_(min=0).view(2, grids, -1).unbind(0)
        return (columns * rows).sum(0)
