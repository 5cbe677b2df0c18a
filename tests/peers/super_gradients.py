"""super-gradients 3.7.1: the YOLOX loss that loops over images and the one that does not, and PP-YOLOE's
assigner.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from simota_triton.integrations import super_gradients as integration
from simota_triton.integrations.patching import Patch

from .aligned import AlignedPeer, Targets, of_dense
from .loading import isolated, load, site
from .openmmlab import padded
from .peer import Owners, Peer, Selections, cells, nobody, to_cxcywh
from .scenes import Scene


def load_losses() -> Any:
    """The module ``yolox_loss``."""
    return load_modules()["super_gradients.training.losses.yolox_loss"]


@cache
def load_modules() -> dict[str, ModuleType]:
    """The modules ``yolox_loss`` and ``ppyolo_loss``, by their full names."""
    root = "super_gradients"
    shells = {
        root: {"is_distributed": lambda: False},
        f"{root}.common": {},
        f"{root}.common.registry": {},
        f"{root}.common.registry.registry": {"register_loss": lambda *args, **kwargs: lambda cls: cls},
        f"{root}.common.abstractions": {},
        f"{root}.common.abstractions.abstract_logger": {"get_logger": logging.getLogger},
        f"{root}.common.deprecate": {"deprecate_param": None},
        f"{root}.training": {},
        f"{root}.training.utils": {"torch_version_is_greater_or_equal": lambda major, minor: True},
        f"{root}.training.losses": {},
        f"{root}.training.datasets": {},
        f"{root}.training.datasets.data_formats": {},
        f"{root}.training.datasets.data_formats.bbox_formats": {},
        f"{root}.common.environment": {},
        f"{root}.common.environment.ddp_utils": {"get_world_size": lambda: 1},
    }
    blanks = (f"{root}.training.utils.visualization.detection", f"{root}.training.utils.visualization.utils")
    with isolated(site("super-gradients", "3.7.1"), shells, ("torchvision", "omegaconf", "cv2", *blanks)):
        losses = load(f"{root}.training.losses.yolox_loss")
        ppyoloe = load(f"{root}.training.losses.ppyolo_loss")
    losses.logger.disabled = True  # it warns of images without candidates before it fails on them
    return {module.__name__: module for module in (losses, ppyoloe)}


def load_ppyoloe(module: ModuleType, patched: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Any:
    """``TaskAlignedAssigner`` of a module that holds the rule of PP-YOLOE."""

    def assign(scene: Scene, **arguments: Any) -> Targets:
        """``PPYoloELoss``: the batch at once, gts padded with zeros."""
        boxes, logits, priors, labels, gts, real = padded(scene)
        with patched():
            found, own, scores = module.TaskAlignedAssigner(**arguments)(
                pred_scores=logits.sigmoid(), pred_bboxes=boxes, anchor_points=priors[:, :2],
                num_anchors_list=[], gt_labels=labels.long(), gt_bboxes=gts, pad_gt_mask=real,
                bg_index=scene.num_classes,
            )  # fmt: skip
        return of_dense(found, own, scores, found < scene.num_classes)

    return assign


def load_own_ppyoloe(*, ours: bool = False) -> Any:
    module = load_modules()["super_gradients.training.losses.ppyolo_loss"]
    return load_ppyoloe(module, patched if ours else nullcontext)


def patched() -> Patch:
    """The integration's own ``patch()`` of the modules loaded here."""
    with mock.patch.dict("sys.modules", load_modules()):
        return integration.patch()


def load_loop() -> Any:
    losses = load_losses()

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``_compute_loss`` of YoloXDetectionLoss."""
        loss = losses.YoloXDetectionLoss(list(PEERS[0].strides), scene.num_classes, **arguments)
        owners = nobody(scene)
        x_shifts, y_shifts, strides = cells(scene)
        for b, (boxes, labels) in enumerate(zip(scene.gt_boxes, scene.gt_labels, strict=True)):
            if not len(boxes):
                continue
            try:
                with Selections() as selections:
                    _, fg_mask, iou, gt_index, _ = loss.get_assignments(
                        b,
                        len(boxes),
                        len(scene.priors),
                        to_cxcywh(boxes),
                        labels.float(),
                        to_cxcywh(scene.pred_boxes[b]),
                        strides,
                        x_shifts,
                        y_shifts,
                        scene.cls_logits,
                        scene.obj_logits,
                    )
            except UnboundLocalError:
                continue  # it fails on an image without a candidate
            owners.gt_index[b, fg_mask] = gt_index
            owners.iou[b, fg_mask] = iou
            selections.write(owners, b, candidates[b])
        return owners

    return assign


def load_fast() -> Any:
    losses = load_losses()

    def assign(scene: Scene, candidates: Tensor, **arguments: Any) -> Owners:
        """``_compute_loss`` of YoloXFastDetectionLoss: the batch at once."""
        loss = losses.YoloXFastDetectionLoss(list(PEERS[1].strides), scene.num_classes, **arguments)
        x_shifts, y_shifts, strides = cells(scene)
        counts = [len(boxes) for boxes in scene.gt_boxes]
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        first = torch.tensor([0, *counts]).cumsum(0)
        targets = torch.cat(
            [image[:, None], torch.cat(scene.gt_labels)[:, None], to_cxcywh(torch.cat(scene.gt_boxes))], 1
        )
        owners = nobody(scene)
        count_k, combine = loss._compute_dynamic_ks, loss._combine_candidates_img_id_fg_id

        def listen_to_k(ids: Tensor, ious: Tensor, bias: float) -> Any:
            result = count_k(ids, ious, bias)
            for gt, k in zip(ids.unique().tolist(), result[0].tolist(), strict=True):
                own = int((first <= gt).sum()) - 1
                owners.dynamic_k[own][gt - first[own]] = k
            return result

        def listen_to_pairs(images: Tensor, priors: Tensor) -> Any:
            owners.claims.index_put_(
                (images, priors), torch.ones_like(images, dtype=torch.int32), accumulate=True
            )
            return combine(images, priors)

        if not Selections.deaf:
            loss._compute_dynamic_ks, loss._combine_candidates_img_id_fg_id = listen_to_k, listen_to_pairs
        prior, _, gt, image, iou, _ = loss._compute_matching(
            to_cxcywh(scene.pred_boxes),
            scene.cls_logits,
            scene.obj_logits,
            strides,
            x_shifts,
            y_shifts,
            targets,
        )
        owners.gt_index[image, prior] = gt - first[image]
        owners.iou[image, prior] = iou
        return owners

    return assign


PEERS = (
    Peer(
        name="YoloXDetectionLoss.get_assignments",
        package="super-gradients 3.7.1",
        preset="super_gradients",
        load=load_loop,
        on_grid=True,
        variants=(({}, {}), ({"center_sampling_radius": 1.5}, {"center_radius": 1.5})),
    ),
    Peer(
        name="YoloXFastDetectionLoss._compute_matching",
        package="super-gradients 3.7.1",
        preset="super_gradients_fast",
        load=load_fast,
        on_grid=True,
        variants=(({}, {}), ({"dynamic_ks_bias": 1.3}, {"k_scale": 1.3})),
    ),
)

PPYOLOE_VARIANTS = (
    ({}, {}),
    ({"topk": 9}, {"topk": 9}),
    ({"alpha": 0.5, "beta": 4.0, "eps": 1e-7}, {"alpha": 0.5, "beta": 4.0, "norm_eps": 1e-7}),
)

ALIGNED_PEERS = (
    AlignedPeer(
        name="PP-YOLOE TaskAlignedAssigner",
        package="super-gradients 3.7.1",
        preset="ppyoloe",
        load=load_own_ppyoloe,
        drop_in=lambda: load_own_ppyoloe(ours=True),
        variants=PPYOLOE_VARIANTS,
    ),
)
