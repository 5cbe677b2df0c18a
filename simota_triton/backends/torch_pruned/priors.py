"""What is known of priors alone, kept from call to call: trainers pass the same few sets at every step."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .block_maxima import ALIGN
from .grid import Levels

MAX_KNOWN = 32
"""Sets of priors, each of another size, that are kept."""


class Priors(NamedTuple):
    """Some priors.

    Attributes:
        values: [P, 4], a copy.
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
        """Facts about priors [P, 4]: those of the last set of this size, where it was the same."""
        count = priors.shape[0]
        known = _KNOWN.get(count)
        if known is not None and known.values.device == priors.device and torch.equal(known.values, priors):
            return known
        usable = priors.isfinite().all(1) & (priors[:, 2:] > 0).all(1)
        columns = (
            F.pad(priors.where(usable[:, None], 1.0), (0, 0, 0, ALIGN - count % ALIGN), value=1.0)
            .t()
            .contiguous()
        )
        if len(_KNOWN) >= MAX_KNOWN:
            _KNOWN.clear()
        _KNOWN[count] = Priors(priors.clone(), columns, bool(usable.all()), Levels.of(priors))
        return _KNOWN[count]


_KNOWN: dict[int, Priors] = {}
