"""The heads of mmdet 3.3.0 (or onedl-mmdetection): RTMDet's, RTMDet-Ins's and YOLOX's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from simota_triton.integrations.patching import Patch
from tests.peers.loading import load_without_ops
from tests.peers.openmmlab import MMDET, load_package
from tests.peers.scenes import Scene

from .maps import distances, level_shapes, to_maps
from .trainer import Ear, Trainer

CONVS = {"in_channels": 4, "feat_channels": 4, "stacked_convs": 1, "norm_cfg": {"type": "BN"}}


class Head(Trainer):
    """``loss_by_feat`` of a head that a configuration built.

    Attributes:
        assigner: Name of the assigner that it holds.
        config: Its arguments.
    """

    package = " ".join(MMDET)
    relative_error = 0.0
    assigner: str
    config: dict[str, Any]

    def load(self) -> None:
        self.classes = load_package()
        _, self.registry, self.masks = load_without_ops(
            "mmdet.models", "mmdet.registry", "mmdet.structures.mask"
        )
        (self.integration,) = load_without_ops("simota_triton.integrations.mmdet")

    def patch(self) -> Patch:
        return self.integration.patch()

    def make(
        self, num_classes: int, *, pos_weight: float = -1, use_l1: bool = False, **arguments: Any
    ) -> Any:
        train_cfg = {
            "assigner": {"type": self.assigner, **arguments},
            "allowed_border": -1,
            "pos_weight": pos_weight,
        }
        head = self.registry.MODELS.build(
            {"type": self.name, "num_classes": num_classes, **CONVS, **self.config, "train_cfg": train_cfg}
        )
        head.use_l1 = use_l1
        original = getattr(self.classes, self.assigner)(**arguments)
        return SimpleNamespace(head=head, ours=head.assigner, original=original, inside=None)

    def loss(
        self, made: Any, predictions: dict[str, Any], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> dict[str, Tensor]:
        made.inside = predictions["inside"]
        size = predictions["size"]
        metas = [{"img_shape": size, "pad_shape": size} for _ in gt_boxes]
        metas[0]["pad_shape"] = predictions["pad_shape"]
        gts = [
            self.classes.InstanceData(bboxes=own, labels=labels)
            for own, labels in zip(gt_boxes, gt_labels, strict=True)
        ]
        for own, masks in zip(gts, predictions.get("masks", ()), strict=False):
            own.masks = self.masks.BitmapMasks(masks.to(torch.uint8).numpy(), *size)
        terms = made.head.loss_by_feat(*predictions["maps"], gts, metas)
        flat = {
            f"{name} {i}": term
            for name, value in terms.items()
            for i, term in enumerate(value if isinstance(value, list) else [value])
        }
        return flat | {"total": torch.stack(list(flat.values())).sum()}

    def listen(self, made: Any, ear: Ear) -> None:
        assign, images = made.original.assign, iter(self.images(ear))

        def listen(pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None) -> Any:
            image = next(images)
            result = ear.call(image, assign, pred_instances, gt_instances, gt_instances_ignore)
            fg_mask = torch.zeros_like(made.inside[image])
            fg_mask[made.inside[image]] = result.gt_inds > 0
            ear.write(
                image,
                fg_mask,
                *(value[result.gt_inds > 0] for value in (result.gt_inds - 1, result.max_overlaps)),
            )
            return result

        made.original.assign, made.head.assigner = listen, made.original

    def deafen(self, made: Any) -> None:
        del made.original.assign
        made.head.assigner = made.ours

    def images(self, ear: Ear) -> list[int]:
        """The images for which the original is called."""
        return list(range(len(ear.owners.dynamic_k)))


class RTMDet(Head):
    """RTMDetHead and RTMDetSepBNHead."""

    assigner = "DynamicSoftLabelAssigner"
    offset = 0.0
    inverted = True
    variants = ({}, {"topk": 9, "pos_weight": 2.0, "soft_center_radius": 2.0, "iou_weight": 1.5})
    config = {  # noqa: RUF012
        "anchor_generator": {"type": "MlvlPointGenerator", "offset": 0, "strides": [8, 16, 32]},
        "bbox_coder": {"type": "DistancePointBBoxCoder"},
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
    }

    def __init__(self, name: str = "RTMDetHead") -> None:
        self.name = name

    def predictions(self, scene: Scene) -> dict[str, Any]:
        return {
            "maps": (to_maps(scene.cls_logits, scene.priors), to_maps(distances(scene), scene.priors)),
            "inside": scene.inside,
            "size": scene.size,
            "pad_shape": (
                0.9 * scene.size[0],
                0.8 * scene.size[1],
            ),  # of the first image: where Scene.inside is True
        }


class RTMDetIns(RTMDet):
    """RTMDetInsHead and RTMDetInsSepBNHead."""

    def predictions(self, scene: Scene) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(scene.seed)
        batch, count, _ = scene.pred_boxes.shape
        # three dynamic convolutions: 10 x 8 + 8, 8 x 8 + 8, 8 + 1
        kernels = 0.1 * torch.randn(batch, count, 169, generator=generator)
        features = torch.randn(batch, 8, *level_shapes(scene.priors)[0], generator=generator)
        own = super().predictions(scene)
        return own | {
            "maps": (*own["maps"], to_maps(kernels, scene.priors), features.requires_grad_()),
            "masks": scene.masks,
        }


class YOLOX(Head):
    """YOLOXHead."""

    name = "YOLOXHead"
    assigner = "SimOTAAssigner"
    variants = (
        {},
        {"use_l1": True, "center_radius": 1.5, "candidate_topk": 20, "iou_weight": 1.0, "cls_weight": 2.5},
    )
    config = {}  # noqa: RUF012

    def predictions(self, scene: Scene) -> dict[str, Any]:
        corner, stride = scene.priors[:, :2] - scene.priors[:, 2:] / 2, scene.priors[:, 2:]
        size = (scene.pred_boxes[..., 2:] - scene.pred_boxes[..., :2]).clamp(min=2**-13)
        boxes = torch.cat(
            [(scene.pred_boxes[..., :2] + size / 2 - corner) / stride, (size / stride).log()], 2
        )
        return {
            "maps": tuple(
                to_maps(values, scene.priors) for values in (scene.cls_logits, boxes, scene.obj_logits)
            ),
            "inside": torch.ones_like(scene.inside),
            "size": scene.size,
            "pad_shape": scene.size,
        }

    def images(self, ear: Ear) -> list[int]:
        return ear.images
