"""paddledet 2.6.0 on PaddlePaddle: the SimOTA assigner of the legacy PicoDet head, and PP-YOLOE's."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .aligned import AlignedPeer, Targets, of_dense
from .loading import isolated, load, site
from .openmmlab import padded
from .peer import Owners, Peer, Selections, nobody
from .scenes import Scene
from .super_gradients import PPYOLOE_VARIANTS

SHELLS = {
    "ppdet": {},
    "ppdet.core": {},
    "ppdet.core.workspace": {"register": lambda cls: cls, "serializable": lambda cls: cls},
    "ppdet.modeling": {"ops": None},
    "ppdet.modeling.losses": {},
    "ppdet.modeling.assigners": {},
    "ppdet.modeling.rbox_utils": {"box2corners": None, "check_points_in_polys": None, "paddle_gather": None},
}


def load_picodet() -> Any:
    with isolated(site("paddledet", "2.6.0"), SHELLS):
        paddle = load("paddle")
        cls = load("ppdet.modeling.assigners.simota_assigner").SimOTAAssigner

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``OTAHead._get_target_single``."""
        owners = nobody(scene)
        for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            if not bool(candidates[b].any()):
                continue  # it fails on an image without a candidate
            assigner = cls(num_classes=scene.num_classes, **{"iou_weight": 6.0, **arguments})
            _listen(assigner, paddle, owners, b, candidates[b])
            scores = scene.cls_logits[b].sigmoid()
            assigner(
                *(
                    paddle.to_tensor(x.numpy())
                    for x in (scores, scene.priors, scene.pred_boxes[b], boxes, labels[:, None])
                )
            )
        return owners

    return assign


def _listen(assigner: Any, paddle: Any, owners: Owners, image: int, candidates: Tensor) -> None:
    """Note what the assigner matches, and the rows that each gt selects on the way."""
    matching, topk = assigner.dynamic_k_matching, paddle.topk
    selections = Selections()

    def listening_topk(*args: Any, **kwargs: Any) -> Any:
        result = topk(*args, **kwargs)
        if kwargs.get("largest") is False:
            selections.select(torch.from_numpy(result[1].numpy()), args[0].shape[0])
        return result

    def listening_matching(cost: Any, iou: Any, num_gt: int) -> Any:
        with mock.patch.object(paddle, "topk", listening_topk):
            gt_index, taken = matching(cost, iou, num_gt)
        prior = candidates.nonzero().squeeze(1)[torch.from_numpy(taken)]
        owners.gt_index[image, prior] = torch.from_numpy(gt_index)
        owners.iou[image, prior] = torch.from_numpy(iou.numpy()[taken, gt_index])
        selections.write(owners, image, candidates)
        return gt_index, taken

    assigner.dynamic_k_matching = listening_matching


def load_ppyoloe() -> Any:
    with isolated(site("paddledet", "2.6.0"), SHELLS):
        paddle = load("paddle")
        cls = load("ppdet.modeling.assigners.task_aligned_assigner").TaskAlignedAssigner

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``PPYOLOEHead.get_loss``: the batch at once, gts padded with zeros."""
        boxes, logits, priors, labels, gts, real = padded(scene)
        tensors = (logits.sigmoid(), boxes, priors[:, :2], labels.long(), gts, real)
        scores, boxes, points, labels, gts, real = (
            paddle.to_tensor(value.contiguous().numpy()) for value in tensors
        )
        answer = cls(**arguments)(scores, boxes, points, [], labels, gts, real, bg_index=scene.num_classes)
        found, own, targets = (torch.from_numpy(value.numpy()) for value in answer[:3])
        return of_dense(found, own, targets, found < scene.num_classes)

    return assign


PEERS = (
    Peer(
        name="picodet SimOTAAssigner",
        package="paddledet 2.6.0",
        preset="picodet",
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
        name="PP-YOLOE TaskAlignedAssigner",
        package="paddledet 2.6.0",
        preset="ppyoloe",
        load=load_ppyoloe,
        variants=PPYOLOE_VARIANTS,
    ),
)
