"""The losses that integrations patch, with a package to compare with."""

from __future__ import annotations

from . import mmdet, mmyolo
from .libreyolo import PicoDet, RTMDet
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
