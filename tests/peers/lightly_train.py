"""lightly-train 0.18.0: the SimOTA assigner of its PicoDet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .loading import isolated, load, site
from .peer import Owners, Peer, Selections, nobody
from .scenes import Scene


def load_picodet() -> Any:
    package = "lightly_train._task_models.picodet_object_detection"
    shells = {"lightly_train": {}, "lightly_train._task_models": {}, package: {}}
    with isolated(site("lightly-train", "0.18.0"), shells):
        cls = load(f"{package}.sim_ota_assigner").SimOTAAssigner

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        assigner = cls(num_classes=scene.num_classes, **arguments)
        owners = nobody(scene)
        for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            if not boxes.numel():
                continue
            with Selections() as selections:
                gt_inds, iou = assigner.assign(
                    pred_scores=scene.cls_logits[b].sigmoid(),
                    priors=scene.priors,
                    decoded_bboxes=scene.pred_boxes[b],
                    gt_bboxes=boxes,
                    gt_labels=labels,
                )
            selections.write(owners, b, candidates[b])
            owners.gt_index[b], owners.iou[b] = gt_inds - 1, iou
        return owners

    return assign


PEERS = (
    Peer(
        name="picodet SimOTAAssigner",
        package="lightly-train 0.18.0",
        preset="picodet_lightly",
        load=load_picodet,
        strides=(8, 16, 32, 64),
        variants=(
            ({}, {}),
            ({"center_radius": 1.5, "candidate_topk": 20}, {"center_radius": 1.5, "candidate_topk": 20}),
            ({"iou_weight": 2.0, "cls_weight": 0.5}, {"iou_weight": 2.0, "cls_weight": 0.5}),
        ),
    ),
)
