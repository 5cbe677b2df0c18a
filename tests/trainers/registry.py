"""The losses that integrations patch, with a package to compare with."""

from __future__ import annotations

from collections.abc import Callable

from . import aligned_losses, mmdet, mmyolo, ultralytics
from .aligned import AlignedTrainer, compare_aligned
from .libreyolo import PicoDet, RTMDet
from .parity import LossTally, compare
from .trainer import Trainer
from .yolox_heads import LibreYolox, Megvii, Pixeltable, SuperGradients, SuperGradientsFast

TRAINERS: tuple[Trainer, ...] = (
    Megvii(),
    Pixeltable(),
    LibreYolox(),
    RTMDet(),
    PicoDet(),
    SuperGradients(),
    SuperGradientsFast(),
    mmdet.RTMDet("RTMDetHead"),
    mmdet.RTMDet("RTMDetSepBNHead"),
    mmdet.RTMDetIns("RTMDetInsHead"),
    mmdet.RTMDetIns("RTMDetInsSepBNHead"),
    mmdet.YOLOX(),
    mmyolo.RTMDet(),
)

ALIGNED_TRAINERS: tuple[AlignedTrainer, ...] = (*ultralytics.TRAINERS, *aligned_losses.TRAINERS)
"""Those of the task-aligned family."""


def comparison_of(trainer: Trainer | AlignedTrainer) -> Callable[..., LossTally]:
    """How a loss is compared with and without ours."""
    return compare_aligned if isinstance(trainer, AlignedTrainer) else compare
