"""The YOLOX heads: yolox 0.3.0 (Megvii), pixeltable-yolox 0.4.3 and libreyolo 1.6.0."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch import Tensor

from .loading import export, isolated, load, site, unpacked
from .peer import Owners, Peer, Selections, cells, nobody, to_cxcywh
from .scenes import Scene


def per_image(scene: Scene, candidates: Tensor, head: Any, *, old_layout: bool = False) -> Owners:
    """``get_losses``: images without gts are background; each other goes through ``get_assignments``."""
    owners = nobody(scene)
    x_shifts, y_shifts, strides = cells(scene)
    for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
        if not len(boxes):
            continue
        common = (
            to_cxcywh(boxes),
            labels.float(),
            to_cxcywh(scene.pred_boxes[b]),
            strides,
            x_shifts,
            y_shifts,
            scene.cls_logits,
        )
        if old_layout:
            arguments = (b, len(boxes), len(scene.priors), *common, None, scene.obj_logits, None, None)
        else:
            arguments = (b, len(boxes), *common, scene.obj_logits)
        try:
            with Selections() as selections:
                _, fg_mask, iou, gt_index, _ = head.get_assignments(*arguments)
        except RuntimeError as error:
            if "selected index k out of range" not in str(error):
                raise
            continue  # yolox 0.3.0 fails on an image without a candidate
        owners.gt_index[b, fg_mask] = gt_index
        owners.iou[b, fg_mask] = iou
        selections.write(owners, b, candidates[b])
    return owners


def of_head(cls: Any, *, old_layout: bool = False) -> Any:
    @functools.cache
    def head(num_classes: int) -> Any:
        return cls(num_classes, width=1 / 64, in_channels=[256, 512, 1024])

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        return per_image(scene, candidates, head(scene.num_classes), old_layout=old_layout)

    return assign


def load_megvii() -> Any:
    return of_head(_head(unpacked("yolox-0.3.0"), "YOLOXHead"), old_layout=True)


def load_pixeltable() -> Any:
    return of_head(_head(site("pixeltable-yolox", "0.4.3"), "YoloxHead"))


def _head(root: Path, name: str) -> Any:
    shells = {"yolox": {}, "yolox.utils": {"visualize_assign": None}, "yolox.models": {}}
    with isolated(root, shells, ("torchvision", "loguru", "cv2", "PIL.Image")):
        export("yolox.utils", "boxes", "compat")
        return getattr(load("yolox.models.yolo_head"), name)


def load_libreyolo() -> Any:
    shells = {"libreyolo": {}, "libreyolo.models": {}, "libreyolo.models.yolox": {}, "libreyolo.training": {}}
    with isolated(site("libreyolo", "1.6.0"), shells):
        return of_head(load("libreyolo.models.yolox.nn").YOLOXHead)


PEERS = (
    Peer(
        name="YOLOXHead.get_assignments",
        package="yolox 0.3.0",
        preset="yolox",
        load=load_megvii,
        on_grid=True,
    ),
    Peer(
        name="YoloxHead.get_assignments",
        package="pixeltable-yolox 0.4.3",
        preset="yolox_main",
        load=load_pixeltable,
        on_grid=True,
    ),
    Peer(
        name="YOLOXHead.get_assignments",
        package="libreyolo 1.6.0",
        preset="yolox_main",
        load=load_libreyolo,
        on_grid=True,
    ),
)
