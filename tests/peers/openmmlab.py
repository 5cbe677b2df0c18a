"""mmdet 3.3.0 (or onedl-mmdetection 3.5.1, where that is on the path) and mmyolo 0.6.0, and our drop-ins in
their registries.
"""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simota_triton import mask_centers

from .aligned import AlignedPeer, Targets, of_dense
from .loading import load_without_ops, site
from .peer import Owners, Peer, Results, Selections, nobody
from .scenes import Scene

ONEDL = any(found.metadata["Name"] == "onedl-mmdetection" for found in importlib.metadata.distributions())
MMDET = ("onedl-mmdetection", "3.5.1") if ONEDL else ("mmdet", "3.3.0")


def load_package(*, with_mmyolo: bool = False) -> SimpleNamespace:
    """The assigners' classes, ours by the way a configuration builds them."""
    site(*MMDET)
    site("mmengine", "0.10.7")
    assigners = "mmdet.models.task_modules.assigners"
    soft_label, simota, structures, registry = load_without_ops(
        f"{assigners}.dynamic_soft_label_assigner",
        f"{assigners}.sim_ota_assigner",
        "mmengine.structures",
        "mmdet.registry",
    )
    load_without_ops("simota_triton.integrations.mmdet")
    classes = SimpleNamespace(
        SimOTAAssigner=simota.SimOTAAssigner,
        DynamicSoftLabelAssigner=soft_label.DynamicSoftLabelAssigner,
        InstanceData=structures.InstanceData,
        ours=registry.TASK_UTILS.get,
    )
    if with_mmyolo:
        site("mmyolo", "0.6.0")
        module, registry = load_without_ops(
            "mmyolo.models.task_modules.assigners.batch_dsl_assigner", "mmyolo.registry"
        )
        load_without_ops("simota_triton.integrations.mmyolo")
        classes.BatchDynamicSoftLabelAssigner, classes.ours = (
            module.BatchDynamicSoftLabelAssigner,
            registry.TASK_UTILS.get,
        )
    return classes


def per_image(
    scene: Scene, candidates: Tensor, assigner: Any, listener: Any, instances: list[tuple[Any, Any]]
) -> Owners:
    """``_get_targets_single`` of YOLOXHead and RTMDetHead: image by image, priors inside it only."""
    owners = nobody(scene)
    for b, (predictions, gts) in enumerate(instances):
        with listener() as heard:
            result = assigner.assign(
                pred_instances=predictions, gt_instances=gts, gt_instances_ignore=type(gts)()
            )
        inside = scene.inside[b]
        heard.write(owners, b, candidates[b], inside)
        owners.gt_index[b, inside] = result.gt_inds - 1
        owners.iou[b, inside] = torch.where(result.gt_inds > 0, result.max_overlaps, 0.0)
    return owners


def instances(
    scene: Scene, instance_data: Any, scores: Tensor, *, with_masks: bool = False
) -> list[tuple[Any, Any]]:
    """Predictions and gts of each image, as ``assign`` takes them."""
    return [
        (
            instance_data(
                bboxes=scene.pred_boxes[b][inside], scores=scores[b][inside], priors=scene.priors[inside]
            ),
            instance_data(
                bboxes=scene.gt_boxes[b],
                labels=scene.gt_labels[b],
                **({"masks": scene.masks[b]} if with_masks else {}),
            ),
        )
        for b, inside in enumerate(scene.inside)
    ]


def joint_scores(scene: Scene) -> Tensor:
    return (scene.cls_logits.sigmoid() * scene.obj_logits.sigmoid()).sqrt_()


def load_simota(*, ours: bool = False) -> Any:
    classes = load_package()
    cls = classes.ours("SimOTAAssigner") if ours else classes.SimOTAAssigner

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        images = instances(scene, classes.InstanceData, joint_scores(scene))
        return per_image(scene, candidates, cls(**arguments), Results if ours else Selections, images)

    return assign


def load_soft_label(*, with_masks: bool = False, horizontal: bool = False, ours: bool = False) -> Any:
    classes = load_package()
    (boxes,) = load_without_ops("mmdet.structures.bbox")
    cls = classes.ours("DynamicSoftLabelAssigner") if ours else classes.DynamicSoftLabelAssigner

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        images = instances(scene, classes.InstanceData, scene.cls_logits, with_masks=with_masks)
        for _, gts in images if horizontal else ():
            gts.bboxes = boxes.HorizontalBoxes(gts.bboxes)
        return per_image(scene, candidates, cls(**arguments), Results if ours else Selections, images)

    return assign


def load_mmyolo(*, ours: bool = False) -> Any:
    classes = load_package(with_mmyolo=True)

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``RTMDetHead.loss_by_feat`` of mmyolo: the batch at once, gts padded with zeros."""
        owners = nobody(scene)
        inputs = padded(scene)
        if ours:
            with Results() as heard:
                result = classes.ours("BatchDynamicSoftLabelAssigner")(
                    num_classes=scene.num_classes, **arguments
                )(*inputs)
            owners.gt_index[:] = heard.result.gt_index
            owners.claims[:] = heard.result.claims
            owners.dynamic_k[:] = [
                k[: len(own)] for k, own in zip(heard.result.dynamic_k, scene.gt_boxes, strict=True)
            ]
            owners.iou[:] = result["assign_metrics"]
            return owners
        assigner = classes.BatchDynamicSoftLabelAssigner(num_classes=scene.num_classes, **arguments)
        if not Selections.deaf:
            listen_to_batch(assigner, owners)
        owners.iou[:] = assigner(*inputs)["assign_metrics"]
        return owners

    return assign


def load_tood(*, ours: bool = False) -> Any:
    classes = load_package()
    (module,) = load_without_ops("mmdet.models.task_modules.assigners.task_aligned_assigner")
    cls = classes.ours("TaskAlignedAssigner") if ours else module.TaskAlignedAssigner

    def assign(scene: Scene, *, alpha: float = 1, beta: float = 6, **arguments: Any) -> Targets:
        """``TOODHead._get_targets_single``: image by image, anchors of 8 strides, and its targets."""
        side = 8 * scene.priors[:, 2:]
        anchors = torch.cat([scene.priors[:, :2] - side / 2, scene.priors[:, :2] + side / 2], 1)
        assigner = cls(**{"topk": 13, **arguments})
        fg_mask = torch.zeros(scene.pred_boxes.shape[:2], dtype=torch.bool)
        labels, own = torch.zeros(fg_mask.shape, dtype=torch.int64), torch.zeros_like(scene.pred_boxes)
        scores = torch.zeros(fg_mask.shape)
        for b, (boxes, gt_labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            predictions = classes.InstanceData(
                priors=anchors, bboxes=scene.pred_boxes[b], scores=scene.cls_logits[b].sigmoid()
            )
            gts = classes.InstanceData(bboxes=boxes, labels=gt_labels)
            result = assigner.assign(predictions, gts, None, alpha, beta)
            fg_mask[b], labels[b] = result.gt_inds > 0, result.labels
            if not len(boxes):
                continue
            row = (result.gt_inds - 1).clamp(min=0)
            own[b] = boxes[row]
            metric, iou = (
                torch.zeros(len(boxes)).scatter_reduce(0, row, torch.where(fg_mask[b], value, 0.0), "amax")
                for value in (result.assign_metrics, result.max_overlaps)
            )
            scores[b] = torch.where(fg_mask[b], result.assign_metrics / (metric[row] + 1e-7) * iou[row], 0.0)
        return Targets(fg_mask, labels, own, scores)

    return assign


def load_mmyolo_aligned(*, ours: bool = False) -> Any:
    classes = load_package(with_mmyolo=True)
    (module,) = load_without_ops("mmyolo.models.task_modules.assigners.batch_task_aligned_assigner")
    cls = classes.ours("BatchTaskAlignedAssigner") if ours else module.BatchTaskAlignedAssigner

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``YOLOv8Head.loss_by_feat`` and ``YOLOv6Head.loss_by_feat``, but that every gt is one."""
        boxes, logits, *others = padded(scene)
        found = cls(num_classes=scene.num_classes, **arguments)(boxes, logits.sigmoid(), *others)
        return of_dense(
            *(found[f"assigned_{name}"] for name in ("labels", "bboxes", "scores")),
            found["fg_mask_pre_prior"],
        )

    return assign


def listen_to_batch(assigner: Any, owners: Owners) -> None:
    """Write down what mmyolo's assigner selects and assigns, from now on."""
    matching = assigner.dynamic_k_matching

    def listen(cost: Tensor, iou: Tensor, real: Tensor) -> Any:
        with Order() as order:
            result = matching(cost, iou, real)
        _, gt_index, taken = result
        owners.gt_index[taken] = gt_index
        order.write_batch(owners, cost)
        count = torch.tensor([len(own) for own in owners.dynamic_k])
        owners.documented.logical_or_(owners.gt_index >= count[:, None])
        return result

    assigner.dynamic_k_matching = listen


def padded(scene: Scene) -> tuple[Tensor, ...]:
    """The arguments of mmyolo's assigner."""
    width = max(len(boxes) for boxes in scene.gt_boxes)
    boxes = torch.stack([F.pad(own, (0, 0, 0, width - len(own))) for own in scene.gt_boxes])
    labels = torch.stack([F.pad(own, (0, width - len(own))) for own in scene.gt_labels])
    real = torch.stack([torch.arange(width) < len(own) for own in scene.gt_boxes])
    return (
        scene.pred_boxes,
        scene.cls_logits,
        scene.priors,
        labels[..., None].float(),
        boxes,
        real[..., None].float(),
    )


class Order(Selections):
    """mmyolo selects by one sort of all costs and the ks.

    We do not copy that a non-candidate, of cost 1e8, can be selected, and then goes before candidates of a
    larger cost; nor that padding can win a conflict.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.sort:
            self.order = result.indices
        elif func is torch.clamp and not result.is_floating_point():
            self.k = result
        return result

    def write_batch(self, owners: Owners, cost: Tensor) -> None:
        """Claims and ks of all images, and the priors on which the first deviation bears."""
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


def inside_flags_and_edges(scene: Scene) -> dict[str, Any]:
    """HorizontalBoxes hold their edge: which priors lie in any of them, for a configuration that asks no
    region.
    """
    point = scene.priors[:, None, :2]  # [P, 1, 2]
    inside = [((point >= boxes[:, :2]) & (point <= boxes[:, 2:])).all(2).any(1) for boxes in scene.gt_boxes]
    return {"candidate_mask": scene.inside & torch.stack(inside)}


SOFT_LABEL_VARIANTS = (
    ({}, {}),
    ({"topk": 9}, {"candidate_topk": 9}),
    ({"soft_center_radius": 2.0, "iou_weight": 1.5}, {"center_offset": 2.0, "iou_weight": 1.5}),
)

PEERS = (
    Peer(
        name="SimOTAAssigner",
        package=" ".join(MMDET),
        preset="mmdet_simota",
        load=load_simota,
        drop_in=lambda: load_simota(ours=True),
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
        package=" ".join(MMDET),
        preset="rtmdet",
        load=load_soft_label,
        drop_in=lambda: load_soft_label(ours=True),
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
        extras=inside_flags,
    ),
    Peer(
        name="DynamicSoftLabelAssigner with masks",
        package=" ".join(MMDET),
        preset="rtmdet",
        load=lambda: load_soft_label(with_masks=True),
        drop_in=lambda: load_soft_label(with_masks=True, ours=True),
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
        extras=inside_flags_and_masks,
    ),
    Peer(
        name="DynamicSoftLabelAssigner, HorizontalBoxes",
        package=" ".join(MMDET),
        preset="rtmdet",
        load=lambda: load_soft_label(horizontal=True),
        drop_in=lambda: load_soft_label(horizontal=True, ours=True),
        offset=0.0,
        inverted=True,
        variants=tuple(
            (arguments, {**overrides, "candidate": "all"}) for arguments, overrides in SOFT_LABEL_VARIANTS
        ),
        extras=inside_flags_and_edges,
    ),
    Peer(
        name="BatchDynamicSoftLabelAssigner",
        package="mmyolo 0.6.0",
        preset="rtmdet_mmyolo",
        load=load_mmyolo,
        drop_in=lambda: load_mmyolo(ours=True),
        offset=0.0,
        inverted=True,
        variants=SOFT_LABEL_VARIANTS,
    ),
)

YOLOV8 = {"use_ciou": True, "topk": 10, "alpha": 0.5, "beta": 6, "eps": 1e-9}
YOLOV6 = {"use_ciou": False, "topk": 13, "alpha": 1, "beta": 6}

ALIGNED_PEERS = (
    AlignedPeer(
        name="TOOD TaskAlignedAssigner",
        package=" ".join(MMDET),
        preset="tood",
        load=load_tood,
        drop_in=lambda: load_tood(ours=True),
        variants=(
            ({}, {}),
            ({"topk": 9}, {"topk": 9}),
            ({"alpha": 0.5, "beta": 4}, {"alpha": 0.5, "beta": 4.0}),
        ),
    ),
    AlignedPeer(
        name="YOLOv8 BatchTaskAlignedAssigner",
        package="mmyolo 0.6.0",
        preset="tal_mmyolo",
        load=load_mmyolo_aligned,
        drop_in=lambda: load_mmyolo_aligned(ours=True),
        variants=((YOLOV8, {}), ({**YOLOV8, "topk": 7, "eps": 1e-7}, {"topk": 7, "norm_eps": 1e-7})),
    ),
    AlignedPeer(
        name="YOLOv6 BatchTaskAlignedAssigner",
        package="mmyolo 0.6.0",
        preset="yolov6_mmyolo",
        load=load_mmyolo_aligned,
        drop_in=lambda: load_mmyolo_aligned(ours=True),
        variants=((YOLOV6, {}), ({**YOLOV6, "topk": 9, "beta": 4}, {"topk": 9, "beta": 4.0})),
    ),
)
