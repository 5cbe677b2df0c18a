"""paddledet 2.6.0 on PaddlePaddle: the SimOTA assigner of the legacy PicoDet head."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .loading import isolated, load, site
from .peer import Owners, Peer, Selections, nobody
from .scenes import Scene


def load_picodet() -> Any:
    root = site("paddledet", "2.6.0")
    unregistered = {"register": lambda cls: cls, "serializable": lambda cls: cls}
    shells = {
        "ppdet": {},
        "ppdet.core": {},
        "ppdet.core.workspace": unregistered,
        "ppdet.modeling": {"ops": None},
        "ppdet.modeling.losses": {},
        "ppdet.modeling.assigners": {},
    }
    with isolated(root, shells):
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
