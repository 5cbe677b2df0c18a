"""mmyolo 0.6.0: RTMDet's head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from simota_triton.integrations.patching import Package, Patch
from tests.peers.loading import load_without_ops
from tests.peers.openmmlab import listen_to_batch, load_package
from tests.peers.scenes import Scene

from .maps import distances, to_maps
from .trainer import Ear, Trainer

ASSIGNER = "BatchDynamicSoftLabelAssigner"


class RTMDet(Trainer):
    """``loss_by_feat`` of a head that a configuration built with our assigner; nothing is patched."""

    name = "RTMDetHead"
    package = "mmyolo 0.6.0"
    relative_error = 0.0
    offset = 0.0
    inverted = True
    variants = ({}, {"topk": 9, "soft_center_radius": 2.0, "iou_weight": 1.5})

    def load(self) -> None:
        self.classes = load_package(with_mmyolo=True)
        _, self.registry, self.config = load_without_ops(
            "mmyolo.models", "mmyolo.registry", "mmengine.config"
        )
        load_without_ops("simota_triton.integrations.mmyolo")

    def patch(self) -> Patch:
        return Patch(Package("mmyolo", {"mmyolo": ("0.6",)}, "pip install mmyolo==0.6.0")).apply([])

    def make(self, num_classes: int, **arguments: Any) -> Any:
        module = {
            "type": "RTMDetSepBNHeadModule",
            "num_classes": num_classes,
            "in_channels": 4,
            "feat_channels": 4,
            "stacked_convs": 1,
        }
        assigner = {"type": f"mmyolo.{ASSIGNER}", "num_classes": num_classes, **arguments}
        train_cfg = self.config.ConfigDict(assigner=assigner, allowed_border=-1, pos_weight=-1)
        head = self.registry.MODELS.build(
            {"type": "mmyolo.RTMDetHead", "head_module": module, "train_cfg": train_cfg}
        )
        original = self.classes.BatchDynamicSoftLabelAssigner(num_classes, **arguments)
        return SimpleNamespace(head=head, ours=head.assigner, original=original)

    def predictions(self, scene: Scene) -> dict[str, Any]:
        sides = distances(scene) / scene.priors[:, 2:3]
        return {"maps": (to_maps(scene.cls_logits, scene.priors), to_maps(sides, scene.priors))}

    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        rows = [
            torch.cat([torch.full((len(boxes), 1), image), labels[:, None], boxes], 1)[
                boxes.sum(1) > 0
            ]  # other gts are padding to mmyolo
            for image, (boxes, labels) in enumerate(zip(gt_boxes, gt_labels, strict=True))
        ]
        terms = made.head.loss_by_feat(*predictions["maps"], torch.cat(rows), [{} for _ in rows])
        return terms | {"total": sum(terms.values())}

    def listen(self, made: Any, ear: Ear) -> None:
        listen_to_batch(made.original, ear.owners)

        def listen(module: Any, inputs: Any, result: dict[str, Tensor]) -> None:
            ear.owners.iou[:] = result["assign_metrics"]

        self.hook = made.original.register_forward_hook(listen)
        made.head.assigner = made.original

    def deafen(self, made: Any) -> None:
        del made.original.dynamic_k_matching
        self.hook.remove()
        made.head.assigner = made.ours
