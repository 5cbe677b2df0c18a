"""mmdet 3.3.0 and mmyolo 0.6.0 with a registry of our own; mmengine's InstanceData is the original."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simota_triton import mask_centers

from .loading import Missing, isolated, load, site
from .peer import Owners, Peer, Selections, nobody
from .scenes import Scene


class Registry:
    """As much of mmengine's registry as the assigners use."""

    def __init__(self) -> None:
        self.classes: dict[str, Any] = {}

    def register_module(self) -> Any:
        def register(cls: Any) -> Any:
            self.classes[cls.__name__] = cls
            return cls

        return register

    def build(self, config: dict[str, Any]) -> Any:
        config = dict(config)
        return self.classes[config.pop("type").removeprefix("mmdet.")](**config)


def load_package(*, with_mmyolo: bool = False) -> SimpleNamespace:
    """The assigners' classes."""
    root = site("mmdet", "3.3.0")
    if with_mmyolo and site("mmyolo", "0.6.0") != root:
        raise Missing("mmyolo is not installed beside mmdet")
    site("mmengine", "0.10.7")
    registry = Registry()
    registries = {"TASK_UTILS": registry}
    assigners = "mmdet.models.task_modules.assigners"
    shells = {
        "mmdet": {},
        "mmdet.registry": registries,
        "mmdet.utils": {"ConfigType": dict},
        "mmdet.structures": {},
        "mmdet.models": {},
        "mmdet.models.task_modules": {},
        assigners: {},
        "mmyolo": {},
        "mmyolo.registry": registries,
        "mmyolo.models": {},
        "mmyolo.models.task_modules": {},
        "mmyolo.models.task_modules.assigners": {},
    }
    with isolated(root, shells, ("mmcv.ops.roi_align", "mmcv", "pycocotools.mask", "shapely.geometry", "cv2")):
        load(f"{assigners}.iou2d_calculator")
        classes = SimpleNamespace(
            SimOTAAssigner=load(f"{assigners}.sim_ota_assigner").SimOTAAssigner,
            DynamicSoftLabelAssigner=load(f"{assigners}.dynamic_soft_label_assigner").DynamicSoftLabelAssigner,
            InstanceData=load("mmengine.structures").InstanceData,
        )
        if with_mmyolo:
            module = load("mmyolo.models.task_modules.assigners.batch_dsl_assigner")
            classes.BatchDynamicSoftLabelAssigner = module.BatchDynamicSoftLabelAssigner
    return classes


def per_image(scene: Scene, candidates: Tensor, assigner: Any, instance_data: Any, scores: Tensor, *, with_masks: bool = False) -> Owners:
    """``_get_targets_single`` of YOLOXHead and RTMDetHead: one image after the other, priors inside the image only."""
    owners = nobody(scene)
    for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
        inside = scene.inside[b]
        predictions = instance_data(bboxes=scene.pred_boxes[b][inside], scores=scores[b][inside], priors=scene.priors[inside])
        gts = instance_data(bboxes=boxes, labels=labels, **({"masks": scene.masks[b]} if with_masks else {}))
        with Selections() as selections:
            result = assigner.assign(pred_instances=predictions, gt_instances=gts, gt_instances_ignore=instance_data())
        selections.write(owners, b, candidates[b])
        owners.gt_index[b, inside] = result.gt_inds - 1
        owners.iou[b, inside] = torch.where(result.gt_inds > 0, result.max_overlaps, 0.0)
    return owners


def load_simota() -> Any:
    classes = load_package()

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        scores = (scene.cls_logits.sigmoid() * scene.obj_logits.sigmoid()).sqrt_()
        return per_image(scene, candidates, classes.SimOTAAssigner(**arguments), classes.InstanceData, scores)

    return assign


def load_soft_label(*, with_masks: bool = False) -> Any:
    classes = load_package()

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        assigner = classes.DynamicSoftLabelAssigner(**arguments)
        return per_image(scene, candidates, assigner, classes.InstanceData, scene.cls_logits, with_masks=with_masks)

    return assign


def load_mmyolo() -> Any:
    classes = load_package(with_mmyolo=True)

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``RTMDetHead.loss_by_feat`` of mmyolo: the batch at once, gts padded with zeros."""
        assigner = classes.BatchDynamicSoftLabelAssigner(num_classes=scene.num_classes, **arguments)
        owners = nobody(scene)
        matching = assigner.dynamic_k_matching

        def listen(cost: Tensor, iou: Tensor, real: Tensor) -> Any:
            with Order() as order:
                result = matching(cost, iou, real)
            _, gt_index, taken = result
            owners.gt_index[taken] = gt_index
            order.write(owners, cost)
            count = torch.tensor([len(boxes) for boxes in scene.gt_boxes])
            owners.documented.logical_or_(owners.gt_index >= count[:, None])
            return result

        assigner.dynamic_k_matching = listen
        width = max(len(boxes) for boxes in scene.gt_boxes)
        boxes = torch.stack([F.pad(own, (0, 0, 0, width - len(own))) for own in scene.gt_boxes])
        labels = torch.stack([F.pad(own, (0, width - len(own))) for own in scene.gt_labels])
        real = torch.stack([torch.arange(width) < len(own) for own in scene.gt_boxes])
        result = assigner(scene.pred_boxes, scene.cls_logits, scene.priors, labels[..., None].float(), boxes, real[..., None].float())
        owners.iou[:] = result["assign_metrics"]
        return owners

    return assign


class Order(Selections):
    """mmyolo selects by one sort of all costs and the ks.

    We do not copy that a non-candidate, of cost 1e8, can be selected, and then goes before candidates of a larger cost;
    nor that padding can win a conflict.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.sort:
            self.order = result.indices
        elif func is torch.clamp and not result.is_floating_point():
            self.k = result
        return result

    def write(self, owners: Owners, cost: Tensor) -> None:  # type: ignore[override]
        outside = (cost == 1e8).all(2)
        for b, own in enumerate(owners.dynamic_k):
            own[:] = self.k[b, : len(own)]
            for g, k in enumerate(own.tolist()):
                first, rest = self.order[b, :k, g], self.order[b, k:, g]
                owners.claims[b, first] += 1
                owners.documented[b, first] |= outside[b, first]
                passed_over = rest[~outside[b, rest]][: int(outside[b, first].sum())]
                owners.documented[b, passed_over] = True


def inside_flags(scene: Scene) -> dict[str, Any]:
    return {"candidate_mask": scene.inside}


def inside_flags_and_masks(scene: Scene) -> dict[str, Any]:
    centers = [mask_centers(masks, boxes) for masks, boxes in zip(scene.masks, scene.gt_boxes, strict=True)]
    return {"candidate_mask": scene.inside, "gt_centers": centers}


SOFT_LABEL_VARIANTS = (
    ({}, {}),
    ({"topk": 9}, {"candidate_topk": 9}),
    ({"soft_center_radius": 2.0, "iou_weight": 1.5}, {"center_offset": 2.0, "iou_weight": 1.5}),
)

PEERS = (
    Peer(
        name="SimOTAAssigner",
        package="mmdet 3.3.0",
        preset="mmdet_simota",
        load=load_simota,
        variants=(
            ({}, {}),
            ({"center_radius": 1.5}, {"center_radius": 1.5}),
            ({"candidate_topk": 20}, {"candidate_topk": 20}),
            ({"iou_weight": 1.0, "cls_weight": 2.5}, {"iou_weight": 1.0, "cls_weight": 2.5}),
        ),
        extras=inside_flags,
    ),
    Peer(
        name="DynamicSoftLabelAssigner",
        package="mmdet 3.3.0",
        preset="rtmdet",
        load=load_soft_label,
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
        extras=inside_flags,
    ),
    Peer(
        name="DynamicSoftLabelAssigner with masks",
        package="mmdet 3.3.0",
        preset="rtmdet",
        load=lambda: load_soft_label(with_masks=True),
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
        extras=inside_flags_and_masks,
    ),
    Peer(
        name="BatchDynamicSoftLabelAssigner",
        package="mmyolo 0.6.0",
        preset="rtmdet_mmyolo",
        load=load_mmyolo,
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
    ),
)
