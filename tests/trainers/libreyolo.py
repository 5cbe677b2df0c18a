"""libreyolo 1.6.0: the losses of RTMDet and PicoDet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from simota_triton.integrations import libreyolo
from simota_triton.integrations.patching import Patch
from tests.peers.libreyolo import load_modules
from tests.peers.scenes import Scene

from .maps import distances, distributions, to_maps
from .trainer import Ear, Trainer, offered


class LibreLoss(Trainer):
    package = "libreyolo 1.6.0"
    module: str

    def load(self) -> None:
        self.modules = load_modules()

    def patch(self) -> Patch:
        with offered(self.modules):
            return libreyolo.patch()

    def make(self, num_classes: int, **arguments: Any) -> Any:
        return getattr(self.modules[self.module], self.name)(
            num_classes=num_classes, strides=self.strides, **arguments
        )

    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        device = predictions["cls"][0].device
        own = [boxes.to(device) for boxes in gt_boxes], [labels.to(device) for labels in gt_labels]
        result = made(predictions["cls"], predictions["box"], *own)
        return {
            name.removesuffix("_loss"): value for name, value in result.items() if isinstance(value, Tensor)
        }


class RTMDet(LibreLoss):
    name = "RTMDetLoss"
    module = "libreyolo.models.rtmdet.loss"
    offset = 0.0
    inverted = True
    variants = ({}, {"assigner_topk": 9}, {"soft_center_radius": 2.0, "iou_weight": 1.5})

    def predictions(self, scene: Scene) -> dict[str, Any]:
        return {
            "cls": to_maps(scene.cls_logits, scene.priors),
            "box": to_maps(distances(scene), scene.priors),
        }

    def listen(self, made: Any, ear: Ear) -> None:
        assigner, images = made.assigner, iter(ear.images)
        single = assigner._assign_single

        def listen(*args: Any) -> Any:
            image = next(images)
            fg_mask, gt_index, iou = result = ear.call(image, single, *args)
            if fg_mask is not None:
                ear.write(image, fg_mask, gt_index, iou)
            return result

        assigner._assign_single = listen

    def deafen(self, made: Any) -> None:
        del made.assigner._assign_single


class PicoDet(LibreLoss):
    name = "PICODETLoss"
    module = "libreyolo.models.picodet.loss"
    strides = (8, 16, 32, 64)
    variants = ({}, {"sim_ota_iou_weight": 3.0}, {"distributed_normalize": False})

    def predictions(self, scene: Scene) -> dict[str, Any]:
        sides = distributions(distances(scene) / scene.priors[:, 2:3], 8)
        return {"cls": to_maps(scene.cls_logits, scene.priors), "box": to_maps(sides, scene.priors)}

    def listen(self, made: Any, ear: Ear) -> None:
        images, assign = iter(ear.images), made.assigner.assign

        def listen(**kwargs: Any) -> Any:
            image = next(images)
            gt_inds, _, iou, fg_mask = result = ear.call(image, assign, **kwargs)
            ear.write(image, fg_mask, gt_inds[fg_mask] - 1, iou[fg_mask])
            return result

        made.assigner.assign = listen

    def deafen(self, made: Any) -> None:
        del made.assigner.assign
