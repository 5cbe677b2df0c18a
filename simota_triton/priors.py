"""Priors: the points on the grids of a head's levels, one for each prediction, and what is known of them from
earlier calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

STRIDES = (8, 16, 32)
"""Pixels from prior to prior on each level of most detectors, finest level first."""

MAX_KNOWN = 32
"""Sets of priors, each of another size, that are kept: the image sizes of multi-scale training."""

T = TypeVar("T")


def grid_priors(
    image_size: int | tuple[int, int], strides: Sequence[int] = STRIDES, offset: float = 0.0
) -> Tensor:
    """The priors of an image, in the order in which a head predicts: the finest level first, each row by row.

    A level of stride s divides the image into cells of s x s pixels. The prior of the cell in row i and
    column j is the point

        x = (j + offset) * s,    y = (i + offset) * s.

    Where in its cell that point lies differs from detector to detector, and decides which priors lie inside a
    gt. Take the offset that your configuration was published with, ``config.prior_offset``:

        0.0, the upper left corner   seed, rtmdet, rtmdet_mmyolo, libre_rtmdet, nanodet, damo
        0.5, the centre              yolox, yolox_main, mmdet_simota, super_gradients, super_gradients_fast,
                                     picodet, picodet_lightly, picodet_libre

    If your head has its own generator of priors, pass what it gives: these are its points.

    Args:
        image_size: Pixels of a side, or (height, width).
        strides: The stride of each level, which has ceil(height / stride) rows of ceil(width / stride) cells.
        offset: Where in its cell a prior lies, in strides from the upper left corner.

    Returns:
        [P, 4] float32 on the CPU: x, y, stride, stride.

    Example:
        >>> from simota_triton import SimOTAConfig, grid_priors
        >>> grid_priors(640).shape  # 80 * 80 + 40 * 40 + 20 * 20
        torch.Size([8400, 4])
        >>> grid_priors(640)[1].tolist()  # RTMDet's second prior
        [8.0, 0.0, 8.0, 8.0]
        >>> grid_priors(640, offset=SimOTAConfig.yolox().prior_offset)[1].tolist()  # YOLOX's
        [12.0, 4.0, 8.0, 8.0]
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    levels = []
    for stride in strides:
        rows = torch.arange(-(-height // stride), dtype=torch.float32, device="cpu")
        columns = torch.arange(-(-width // stride), dtype=torch.float32, device="cpu")
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points = (torch.stack([x, y], -1).reshape(-1, 2) + offset) * stride  # [rows * columns, 2]
        levels.append(torch.cat([points, torch.full_like(points, stride)], 1))
    return torch.cat(levels)


class KnownPriors:
    """A set of priors that an earlier call may have had too, and what follows from it alone.

    Trainers pass the same few sets at every step. To compare one with the copy that was kept takes a fraction
    of what looking at it takes.

    Attributes:
        values: [P, 4], a copy that nobody changes.
    """

    def __init__(self, priors: Tensor) -> None:
        self.values = priors.clone(memory_format=torch.contiguous_format)
        self._facts: dict[Callable[[Tensor], Any], Any] = {}

    @staticmethod
    def of(priors: Tensor) -> KnownPriors:
        """The set that priors [P, 4] are: the last of this size, where it was the same."""
        known = _KNOWN.get(priors.shape[0])
        if known is not None:
            values = known.values
            if values is priors or (values.device == priors.device and _same_bits(values, priors)):
                return known
        if len(_KNOWN) >= MAX_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[priors.shape[0]] = KnownPriors(priors)
        return known

    def fact(self, form: Callable[[Tensor], T]) -> T:
        """What a function makes of the priors, formed once."""
        if form not in self._facts:
            self._facts[form] = form(self.values)
        found: T = self._facts[form]
        return found


_KNOWN: dict[int, KnownPriors] = {}


def _same_bits(values: Tensor, priors: Tensor) -> bool:
    """Whether priors [P, 4] are the same float32 numbers. Two are compared as one integer: torch wakes
    threads for more than 32,768 elements, and a COCO image has 33,600, which one thread compares sooner than
    another wakes.
    """
    return torch.equal(values.view(torch.int64), priors.contiguous().view(torch.int64))
