"""libreyolo 1.6.0: the assigners of RTMDet, PicoDet, YOLO-NAS and YOLOv9."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from simota_triton.integrations import libreyolo as integration
from simota_triton.integrations.patching import Patch

from .aligned import AlignedPeer, Targets, of_dense
from .loading import isolated, load, site
from .openmmlab import padded
from .peer import Owners, Peer, Selections, nobody
from .scenes import Scene
from .super_gradients import PPYOLOE_VARIANTS, load_ppyoloe


def load_module(name: str) -> Any:
    """``libreyolo.models.<name>.loss``."""
    shells = {
        "libreyolo": {},
        "libreyolo.data": {"default_oks_sigmas": None},  # of poses
        "libreyolo.models": {},
        f"libreyolo.models.{name}": {},
        "libreyolo.training": {},
    }
    with isolated(site("libreyolo", "1.6.0"), shells):
        return load(f"libreyolo.models.{name}.loss")


def load_rtmdet() -> Any:
    module = load_module("rtmdet")

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``RTMDetLoss.forward``: gts padded, priors [P, 3]."""
        assigner = module.DynamicSoftLabelAssigner(scene.num_classes, **arguments)
        owners = nobody(scene)
        single = assigner._assign_single
        images = iter([b for b, own in enumerate(scene.gt_boxes) if len(own)])

        def listen(*args: Any) -> Any:
            b = next(images)
            with Selections() as selections:
                result = single(*args)
            fg_mask, gt_index, _ = result
            if fg_mask is not None:
                owners.gt_index[b, fg_mask] = gt_index
            selections.write(owners, b, candidates[b])
            return result

        assigner._assign_single = listen
        width = max(len(boxes) for boxes in scene.gt_boxes)
        boxes = torch.stack([F.pad(own, (0, 0, 0, width - len(own))) for own in scene.gt_boxes])
        labels = torch.stack([F.pad(own, (0, width - len(own))) for own in scene.gt_labels])
        real = torch.stack([torch.arange(width) < len(own) for own in scene.gt_boxes]).float()
        result = assigner(
            scene.pred_boxes, scene.cls_logits, scene.priors[:, :3], labels[..., None], boxes, real[..., None]
        )
        owners.iou[:] = result["assign_metrics"]
        return owners

    return assign


def load_picodet() -> Any:
    module = load_module("picodet")

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``PICODETLoss.forward``."""
        assigner = module.SimOTAAssigner(**{"iou_weight": 6.0, **arguments})
        owners = nobody(scene)
        for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            if not boxes.numel():
                continue
            with Selections() as selections:
                gt_inds, _, iou, _ = assigner.assign(
                    priors=scene.priors,
                    decoded_bboxes=scene.pred_boxes[b],
                    cls_pred=scene.cls_logits[b].sigmoid(),
                    gt_bboxes=boxes,
                    gt_labels=labels,
                )
            selections.write(owners, b, candidates[b])
            owners.gt_index[b], owners.iou[b] = gt_inds - 1, iou
        return owners

    return assign


MODULES = ("rtmdet", "picodet", "yolonas", "yolo9")


@cache
def load_modules() -> dict[str, ModuleType]:
    """The modules that the integration patches, by their full names."""
    shells = {"libreyolo": {}, "libreyolo.models": {}, "libreyolo.models.yolox": {}, "libreyolo.training": {}}
    with isolated(site("libreyolo", "1.6.0"), shells):
        heads = load("libreyolo.models.yolox.nn")
    return {heads.__name__: heads} | {f"libreyolo.models.{name}.loss": load_module(name) for name in MODULES}


def patched() -> Patch:
    """The integration's own ``patch()`` of the modules loaded here."""
    with mock.patch.dict("sys.modules", load_modules()):
        return integration.patch()


def load_yolonas(*, ours: bool = False) -> Any:
    return load_ppyoloe(load_modules()["libreyolo.models.yolonas.loss"], patched if ours else nullcontext)


def load_yolo9(*, ours: bool = False) -> Any:
    module = load_modules()["libreyolo.models.yolo9.loss"]

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``YOLO9Loss``: gts padded with zeros behind their class."""
        boxes, logits, priors, labels, gts, _ = padded(scene)
        matcher = module.BoxMatcher(
            scene.num_classes, priors[:, :2], priors[:, 2], **{"reg_max": 16, **arguments}
        )
        with patched() if ours else nullcontext():
            targets, fg_mask = matcher(torch.cat([labels, gts], 2), (logits, boxes))
        scores, own = targets.split((scene.num_classes, 4), 2)
        return of_dense(scores.argmax(2), own, scores, fg_mask)

    return assign


PEERS = (
    Peer(
        name="rtmdet DynamicSoftLabelAssigner",
        package="libreyolo 1.6.0",
        preset="libre_rtmdet",
        load=load_rtmdet,
        offset=0.0,
        inverted=True,
        variants=(
            ({}, {}),
            ({"topk": 9}, {"candidate_topk": 9}),
            ({"soft_center_radius": 2.0, "iou_weight": 1.5}, {"center_offset": 2.0, "iou_weight": 1.5}),
        ),
    ),
    Peer(
        name="picodet SimOTAAssigner",
        package="libreyolo 1.6.0",
        preset="picodet_libre",
        load=load_picodet,
        strides=(8, 16, 32, 64),
        variants=(
            ({}, {}),
            ({"center_radius": 1.5, "candidate_topk": 20}, {"center_radius": 1.5, "candidate_topk": 20}),
            ({"iou_weight": 2.0, "cls_weight": 0.5}, {"iou_weight": 2.0, "cls_weight": 0.5}),
        ),
    ),
)

ALIGNED_PEERS = (
    AlignedPeer(
        name="YOLO-NAS TaskAlignedAssigner",
        package="libreyolo 1.6.0",
        preset="ppyoloe",
        load=load_yolonas,
        drop_in=lambda: load_yolonas(ours=True),
        variants=PPYOLOE_VARIANTS,
    ),
    AlignedPeer(
        name="YOLOv9 BoxMatcher",
        package="libreyolo 1.6.0",
        preset="yolo9_mit",
        load=load_yolo9,
        drop_in=lambda: load_yolo9(ours=True),
        variants=(
            ({}, {}),
            ({"topk": 4, "reg_max": 8}, {"topk": 4, "max_reach": 6.99}),
            ({"cls_factor": 1.0, "iou_factor": 4.0}, {"alpha": 1.0, "beta": 4.0}),
        ),
    ),
)
