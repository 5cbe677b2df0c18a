"""Priors as the pruning reads them."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ...priors import KnownPriors
from .block_maxima import ALIGN
from .grid import Levels


class Priors(NamedTuple):
    """Some priors.

    Attributes:
        values: [P, 4].
        columns: [4, stride], their columns, padded with ones, which also stand in for what is no prior. The
            stride is a multiple of ``ALIGN`` above P.
        usable: Whether all are finite, with strides above 0.
        levels: The grids they form, or None.
    """

    values: Tensor
    columns: Tensor
    usable: bool
    levels: Levels | None

    @staticmethod
    def of(priors: Tensor) -> Priors:
        """Of priors [P, 4], formed once for each set that is known, see :class:`KnownPriors`."""
        return KnownPriors.of(priors).fact(_of)


def _of(priors: Tensor) -> Priors:
    usable = priors.isfinite().all(1) & (priors[:, 2:] > 0).all(1)
    padding = ALIGN - priors.shape[0] % ALIGN
    columns = F.pad(priors.where(usable[:, None], 1.0), (0, 0, 0, padding), value=1.0).t().contiguous()
    return Priors(priors, columns, bool(usable.all()), Levels.of(priors))
